"""Runs a program on a running Ray cluster: one actor a node, which starts the node's process.

Ray keeps the account of what is taken, starts the actors and notices lost hosts.
`placement.place` chooses the hosts, since the servers' addresses must be known
before the program is serialised; each actor is pinned to its host.

Actors, not Ray tasks, because an actor can be called while it runs its node: a
stop reaches the process as a signal, which leaves it its notice. Cancelling a Ray
task interrupts whatever its Python is at, or kills it. Nothing is restarted.

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

from classact.launch import on_host, ports
from classact.launch.crash_report import crash_text
from classact.launch.engine import Crash, Ended, Engine, Patience, awaited_names
from classact.launch.interrupts import Interrupt
from classact.launch.outcome import LaunchError, Outcome, TaskEnd
from classact.launch.placement import Host, Needs, place
from classact.launch.ray_info import connected, free_hosts
from classact.launch.task import Task

# The actors import this module, and need neither Launchpad nor models.
if TYPE_CHECKING:
    import launchpad as lp

    from classact.experiments.config import ClusterConfig
    from classact.launch.cluster import Key

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
    on_start: Callable[[], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Runs a program on the cluster at RAY_ADDRESS, or else on the one of this machine.

    What a task's end, `until` and the notice mean is as in `run_processes`. A lost
    host is the crash of its tasks. Nothing outlives the call. Blocks until all is
    over; call it from the main thread, on a machine of the cluster.

    Args:
      program: what to run.
      cluster: what its nodes need. A partition is a Ray resource that its hosts
        have, whatever its amount.
      workdir: the run's directory. Every host must see it under this path, and
        the launcher's Python and current directory under theirs.
      until: labels whose tasks' success is the end of the run.
      patience: how long to wait for tasks to stop.
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
    from classact.launch.cluster import needs_of, resources_of_kinds
    from classact.launch.tasks import make_tasks, remove_data_files, task_names

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
        engine = _Ray([], awaited, patience, on_tick)
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


class _Actor:
    """A node's share of its host. Ray calls each method in a thread of a pool that lives as long as this."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def open(self, marker: Path, folder: Path, python: str, servers: int) -> tuple[str, list[int]]:
        """Looks around on the host.

        Args:
          marker: a file that the launcher has just made in the work directory.
          folder: the launcher's current directory, which becomes this process's.
          python: the launcher's interpreter.
          servers: number of ports to find.

        Returns:
          What the host lacks, "" for nothing, and ports that are free there.
        """
        if not marker.exists():
            return f"does not see the work directory {marker.parent}: it must be on a shared file system", []
        if not os.access(python, os.X_OK):
            return f"has no {python}, the launcher's Python", []
        if not folder.is_dir():
            return f"has no directory {folder}, in which the launcher was started", []
        os.chdir(folder)
        return "", ports.free_ports(servers)

    def run(self, task: Task, stop_notice: float) -> on_host.Finished:
        """Runs the node's task until it ends."""
        return on_host.run_task(task, self._events, stop_notice)

    def stop(self) -> None:
        """Asks the task to stop."""
        self._events.put("stop")

    def kill(self) -> None:
        """Ends the task, and lets `run` tell how."""
        self._events.put(on_host.KILL)


class _Ray(Engine):
    """One call of `run_actors`."""

    def __init__(
        self,
        names: Collection[str],
        awaited: Collection[str],
        patience: Patience,
        on_tick: Callable[[], None] | None,
    ) -> None:
        super().__init__(names, awaited, patience, on_tick)
        self.free_ports: dict[str, list[int]] = collections.defaultdict(list)
        self._stop_notice = patience.stop_notice
        self._actors: dict[Key, Any] = {}
        self._placed: Mapping[Key, Host] = {}
        self._tasks: dict[str, Task] = {}
        self._ends: dict[str, TaskEnd] = {}
        self._closed = threading.Event()
        self._waiting: threading.Thread | None = None

    def reserve(
        self, needs: Mapping[Key, Needs], placed: Mapping[Key, Host], node_ids: Mapping[str, str]
    ) -> None:
        """Asks for an actor on the host of each node, with what the node needs; does not wait."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._placed = placed
        actor = ray.remote(_Actor)
        for (label, index), need in needs.items():
            self._actors[label, index] = actor.options(
                name=f"{label}/{index}",  # In the dashboard.
                num_cpus=need.cpus,
                num_gpus=need.gpus,
                memory=int(need.memory_gb * 1e9) or None,
                max_concurrency=2,
                max_restarts=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(
                    node_ids[placed[label, index].name], soft=False
                ),
            ).remote()

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
        runs = {}
        for task in tasks:
            sent = dataclasses.replace(task, env={**travelling, **task.env})
            runs[self._actors[task.label, task.index].run.remote(sent, self._stop_notice)] = task
            self._tasks[task.name] = task
            self.running.add(task.name)
        self._waiting = threading.Thread(target=self._wait, args=(runs,), name="wait-ray", daemon=True)
        self._waiting.start()

    def stop(self) -> None:
        for name in self.running:
            self._actor_of(name).stop.remote()

    def kill(self) -> None:
        for name in self.running:
            self._actor_of(name).kill.remote()

    def close(self) -> None:
        """Gives the actors' shares back; ends whatever is still there."""
        import ray

        self._closed.set()
        if self._waiting is not None:
            self._waiting.join()
        for actor in self._actors.values():
            ray.kill(actor)

    def measured(self, outcome: Outcome) -> Outcome:
        """Returns the outcome with what the tasks used."""
        return dataclasses.replace(
            outcome,
            cpu_seconds=sum(end.cpu_seconds for end in self._ends.values()),
            peak_bytes=sum(end.peak_bytes for end in self._ends.values()),
            tasks=dict(self._ends),
        )

    def _actor_of(self, name: str) -> Any:
        task = self._tasks[name]
        return self._actors[task.label, task.index]

    def _wait(self, runs: dict[Any, Task]) -> None:
        """Puts the tasks' ends on the queue, in a thread of its own."""
        import ray

        while runs and not self._closed.is_set():
            found, _ = ray.wait(list(runs), timeout=_POLL_SECONDS)
            for answer in found:
                self.events.put(self._ended(runs.pop(answer), answer))

    def _ended(self, task: Task, answer: Any) -> Ended:
        import ray

        try:
            finished = ray.get(answer)
        except ray.exceptions.RayError as error:
            host = self._placed[task.label, task.index]
            message = f"task {task.name} was lost with its actor on {host.address}: {_reason(error)}"
            return Ended(task.name, Crash(message, crash_text(task.log_path)))
        if finished.end is not None:
            self._ends[task.name] = finished.end
        return finished.ended


def _answer_of(host: Host, answer: Any) -> list[int]:
    """The ports that `_Actor.open` found; LaunchError if the host lacks something."""
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
