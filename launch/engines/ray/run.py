"""Runs a program on a running Ray cluster: one actor a node, which starts the node's process.

Ray keeps the account of what is taken, starts the actors and notices lost hosts.
`placement.place` chooses the hosts, since the servers' addresses must be known
before the program is serialised; each actor is pinned to its host.

Actors, not Ray tasks, because an actor can be called while it runs its node: a
stop reaches the process as a signal, which leaves it its notice. Cancelling a Ray
task interrupts whatever its Python is at, or kills it. A node that died is started
again in another actor on the same host; not by Ray, which knows actors only.

Nothing outlives a killed launcher: Ray ends the actors of a driver that is gone,
and the kernel ends an actor's process with the actor (`guard.py`).

Ray is imported where it is used: other engines do without it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import queue
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classact.launch.engines.crash_report import crash_text
from classact.launch.engines.engine import Engine, Patience, awaited_names
from classact.launch.engines.events import Crash, Ended
from classact.launch.engines.interrupts import Interrupt
from classact.launch.engines.outcome import LaunchError, Outcome, TaskEnd
from classact.launch.engines.placement import Host, Needs, place
from classact.launch.engines.ray.actor import RayActor
from classact.launch.engines.ray.info import connected, free_hosts
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.task import Task

if TYPE_CHECKING:
    from classact.experiments.config import ClusterConfig
    from classact.launch.assembly.launchpad import lp
    from classact.launch.engines.cluster import Key

# For the actors to start: each imports Ray first, all of one host at once.
_START_SECONDS = 120.0
_POLL_SECONDS = 0.5
# What of the launcher's environment reaches the tasks. The rest is that of
# `ray start` on their host, where paths, proxies and credentials may be others.
_TRAVELLING = re.compile(r"PYTHONPATH|(CLASSACT|JAX|NCCL|TF|XLA)_.*")


def run_actors(
    program: lp.Program,
    cluster: ClusterConfig,
    workdir: Path,
    *,
    until: Collection[str],
    patience: Patience = Patience(),  # noqa: B008 - it is frozen.
    restarts: Restarts = Restarts(),  # noqa: B008 - it is frozen.
    on_start: Callable[[], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Runs a program on the cluster at RAY_ADDRESS, or else on the one of this machine.

    What a task's end, `until` and the notice mean is as in `run_processes`. A lost
    host is the crash of its tasks, which cannot be started again: Ray would know a
    host that came back by another name. Nothing outlives the call. Blocks until all
    is over; call it from the main thread, on a machine of the cluster.

    Args:
      program: what to run.
      cluster: what its nodes need. A partition is a Ray resource that its hosts
        have, whatever its amount.
      workdir: the run's directory. Every host must see it under this path, and
        the launcher's Python and current directory under theirs.
      until: labels whose tasks' success is the end of the run.
      patience: how long to wait for tasks to stop.
      restarts: which tasks that die are started again.
      on_start: called once, when all tasks are started.
      on_tick: called about once a second while the tasks run; must not block.

    Returns:
      How the run ended. Its `peak_bytes` is the sum of the tasks' peaks.

    Raises:
      LaunchError: before any task is started, if Ray is not installed, no cluster
        answers within seconds, a node fits nowhere, or a host lacks something or
        starts no actor within two minutes.
      RuntimeError: outside the main thread.
    """
    from classact.launch.assembly.tasks import make_tasks, remove_data_files, task_names
    from classact.launch.engines.cluster import needs_of, resources_of_kinds

    awaited = awaited_names(until, {name: label for (label, _), name in task_names(program).items()})
    servers = {
        (label, index): len(node.addresses)
        for label, nodes in program.groups.items()
        for index, node in enumerate(nodes)
    }
    with connected():
        needs = needs_of(cluster, program.groups)
        hosts = free_hosts(cluster.hosts)
        placed = place(needs, list(hosts.values()))
        engine = _Ray([], awaited, patience, on_tick, restarts)
        with engine.interrupts(), contextlib.closing(engine):
            engine.reserve(needs, placed, {host.name: node_id for node_id, host in hosts.items()})
            early = engine.open(workdir, servers)
            if early is not None:
                return Outcome("interrupted", message=f"stopped by {early.name}", signal=early.signal)
            addresses = {host.name: host.address for host in placed.values()}
            tasks = make_tasks(
                program,
                workdir=workdir,
                ports=lambda host: engine.free_ports[host].pop(),
                place=lambda label, index: placed[label, index].name,
                address_of=lambda host: addresses[host],
                resources=resources_of_kinds(cluster, program.groups),
            )
            try:
                engine.start(tasks)
                if on_start is not None:
                    on_start()
                return engine.measured(engine.watch())
            finally:
                engine.abort()
                remove_data_files(tasks)


class _Ray(Engine):
    """One call of `run_actors`."""

    def __init__(
        self,
        names: Collection[str],
        awaited: Collection[str],
        patience: Patience,
        on_tick: Callable[[], None] | None,
        restarts: Restarts,
    ) -> None:
        super().__init__(names, awaited, patience, on_tick, restarts)
        self.free_ports: dict[str, list[int]] = collections.defaultdict(list)
        self._notice = patience.stop_notice
        self._needs: Mapping[Key, Needs] = {}
        self._placed: Mapping[Key, Host] = {}
        self._node_ids: Mapping[str, str] = {}
        self._actors: dict[Key, Any] = {}
        self._tasks: dict[str, Task] = {}
        # Answers of `RayActor.run` that are to come; the waiting thread takes from them.
        self._runs: dict[Any, Task] = {}
        self._runs_lock = threading.Lock()
        self._last_ends: dict[str, TaskEnd | None] = {}
        self._closed = threading.Event()
        self._waiting = threading.Thread(target=self._wait, name="wait-ray", daemon=True)

    def reserve(
        self, needs: Mapping[Key, Needs], placed: Mapping[Key, Host], node_ids: Mapping[str, str]
    ) -> None:
        """Asks for an actor on the host of each node, with what the node needs; does not wait."""
        self._needs, self._placed, self._node_ids = needs, placed, node_ids
        for label, index in needs:
            self._actors[label, index] = self._new_actor((label, index), f"{label}/{index}")

    def _new_actor(self, key: Key, name: str) -> Any:
        """Asks for an actor of a name that no other has, for Ray's dashboard."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        need = self._needs[key]
        node_id = self._node_ids[self._placed[key].name]
        options = {
            "name": name,
            "num_cpus": need.cpus,
            "num_gpus": need.gpus,
            "memory": int(need.memory_gb * 1e9) or None,
            "max_concurrency": 2,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
        }
        return ray.remote(RayActor).options(**options).remote()

    def open(self, workdir: Path, servers: Mapping[Key, int]) -> Interrupt | None:
        """Waits until every actor is there, and finds the ports.

        Returns:
          The signal, if one came first.

        Raises:
          LaunchError: if a host lacks something, or an actor does not start in time.
        """
        import ray

        workdir.mkdir(parents=True, exist_ok=True)
        marker = workdir / f".shared-{uuid.uuid4().hex}"
        marker.touch()
        try:
            asked = {
                actor.open.remote(marker, Path.cwd(), sys.executable, servers[key]): key
                for key, actor in self._actors.items()
            }
            deadline = time.monotonic() + _START_SECONDS
            while asked:
                with contextlib.suppress(queue.Empty):
                    event = self.events.get_nowait()
                    if isinstance(event, Interrupt):
                        return event
                found, _ = ray.wait(list(asked), timeout=_POLL_SECONDS)
                for answer in found:
                    host = self._placed[asked.pop(answer)]
                    self.free_ports[host.name] += _answer_of(host, answer)
                if asked and time.monotonic() > deadline:
                    late = ", ".join(f"{label} {index}" for label, index in asked.values())
                    raise LaunchError(
                        f"Ray has not started {late} within {_START_SECONDS:g} s: are hosts busy?"
                    )
        finally:
            marker.unlink()
        return None

    def start(self, tasks: Sequence[Task]) -> None:
        """Starts the tasks in their actors."""
        travelling = {name: value for name, value in os.environ.items() if _TRAVELLING.fullmatch(name)}
        for task in tasks:
            self._tasks[task.name] = dataclasses.replace(task, env={**travelling, **task.env})
            self._run(task.name)
            self.begun(task.name)
        self._waiting.start()

    def restart(self, name: str) -> None:
        import ray

        task = self._tasks[name]
        key = task.label, task.index
        # What it has of its host is what the next one is to get.
        ray.kill(self._actors[key])
        self._actors[key] = self._new_actor(key, f"{task.label}/{task.index} {uuid.uuid4().hex[:6]}")
        self._run(name)

    def stop(self, names: Collection[str], notice: float) -> None:
        for name in names:
            self._actor_of(name).stop.remote(notice)

    def kill(self) -> None:
        for name in self.running:
            self._actor_of(name).kill.remote()

    def end_of(self, name: str) -> TaskEnd | None:
        return self._last_ends.get(name)

    def close(self) -> None:
        """Gives the actors' shares back; ends whatever is still there."""
        import ray

        self._closed.set()
        if self._waiting.is_alive():
            self._waiting.join()
        for actor in self._actors.values():
            ray.kill(actor)

    def measured(self, outcome: Outcome) -> Outcome:
        """Returns the outcome with the sum of the tasks' peaks."""
        return dataclasses.replace(outcome, peak_bytes=sum(end.peak_bytes for end in outcome.tasks.values()))

    def _actor_of(self, name: str) -> Any:
        task = self._tasks[name]
        return self._actors[task.label, task.index]

    def _run(self, name: str) -> None:
        """Starts a task in its actor, once that is there."""
        answer = self._actor_of(name).run.remote(self._tasks[name], Path.cwd(), self._notice)
        with self._runs_lock:
            self._runs[answer] = self._tasks[name]

    def _wait(self) -> None:
        """Puts the tasks' ends on the queue, in a thread of its own."""
        import ray

        while not self._closed.is_set():
            with self._runs_lock:
                runs = list(self._runs)
            if not runs:
                self._closed.wait(_POLL_SECONDS)
                continue
            found, _ = ray.wait(runs, timeout=_POLL_SECONDS)
            for answer in found:
                with self._runs_lock:
                    task = self._runs.pop(answer)
                self.events.put(self._ended(task, answer))

    def _ended(self, task: Task, answer: Any) -> Ended:
        import ray

        self._last_ends[task.name] = None
        try:
            finished = ray.get(answer)
        except ray.exceptions.RayError as error:
            host = self._placed[task.label, task.index]
            message = f"task {task.name} was lost with its actor on {host.address}: {_reason(error)}"
            gone = isinstance(error, ray.exceptions.ActorUnschedulableError)
            return Ended(task.name, Crash(message, crash_text(task.log_path), fatal=gone))
        self._last_ends[task.name] = finished.end
        return finished.ended


def _answer_of(host: Host, answer: Any) -> list[int]:
    """The ports that `RayActor.open` found; LaunchError if the host lacks something."""
    import ray

    try:
        lacks, found = ray.get(answer)
    except ray.exceptions.RayError as error:
        raise LaunchError(f"host {host.address} cannot start an actor: {_reason(error)}") from None
    if lacks:
        raise LaunchError(f"host {host.address} {lacks}")
    return found


def _reason(error: Exception) -> str:
    """The last line of what Ray says: the cause, after where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
