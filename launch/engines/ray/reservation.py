"""What a run has of a Ray cluster: an actor for each node, pinned to the node's host.

Actors, not Ray tasks, because an actor can be called while it runs its node: a
stop reaches the process as a signal, which leaves it its notice. Cancelling a Ray
task interrupts whatever its Python is at, or kills it.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classact.launch.engines.cluster import Key
from classact.launch.engines.interrupts import Interrupt
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.placement import Host, Needs
from classact.launch.engines.ray.actor import RayActor

# For the actors to start: each imports Ray first, all of one host at once.
_START_SECONDS = 120.0
_POLL_SECONDS = 0.5


class Reservation:
    """The actors of one run, with what their nodes need of the hosts."""

    def __init__(
        self, needs: Mapping[Key, Needs], placed: Mapping[Key, Host], hosts: Mapping[str, Host]
    ) -> None:
        """Asks for the actors; does not wait for them.

        Args:
          needs: of each node.
          placed: on which host it is to be.
          hosts: by Ray's ids.
        """
        self._needs = needs
        self._placed = placed
        self._node_ids = {host.name: node_id for node_id, host in hosts.items()}
        self._actors = {key: self._new_actor(key, f"{key[0]}/{key[1]}") for key in needs}

    def open(
        self, workdir: Path, servers: Mapping[str, Sequence[int]], events: queue.SimpleQueue[Any]
    ) -> Interrupt | dict[str, list[int]]:
        """Waits until every actor is there, and finds free ports of their hosts.

        Args:
          workdir: the run directory; made if it is not there.
          servers: how many ports each node needs.
          events: where signals are put.

        Returns:
          Ports by the hosts' names; or the signal, if one came first.

        Raises:
          LaunchError: if a host lacks something, or an actor does not start in time.
        """
        import ray

        free: dict[str, list[int]] = collections.defaultdict(list)
        workdir.mkdir(parents=True, exist_ok=True)
        marker = workdir / f".shared-{uuid.uuid4().hex}"
        marker.touch()
        try:
            asked = {
                actor.open.remote(marker, Path.cwd(), sys.executable, servers[label][index]): (label, index)
                for (label, index), actor in self._actors.items()
            }
            deadline = time.monotonic() + _START_SECONDS
            while asked:
                with contextlib.suppress(queue.Empty):
                    event = events.get_nowait()
                    if isinstance(event, Interrupt):
                        return event
                found, _ = ray.wait(list(asked), timeout=_POLL_SECONDS)
                for answer in found:
                    host = self._placed[asked.pop(answer)]
                    free[host.name] += _answer_of(host, answer)
                if asked and time.monotonic() > deadline:
                    late = ", ".join(f"{label} {index}" for label, index in asked.values())
                    raise LaunchError(
                        f"Ray has not started {late} within {_START_SECONDS:g} s: are hosts busy?"
                    )
        finally:
            marker.unlink()
        return free

    def actor(self, key: Key) -> Any:
        """The actor of a node."""
        return self._actors[key]

    def host(self, key: Key) -> Host:
        """The host of a node."""
        return self._placed[key]

    def renew(self, key: Key) -> None:
        """Takes another actor for a node, on the same host."""
        import ray

        # What it has of its host is what the next one is to get.
        ray.kill(self._actors[key])
        self._actors[key] = self._new_actor(key, f"{key[0]}/{key[1]} {uuid.uuid4().hex[:6]}")

    def close(self) -> None:
        """Gives the actors' shares back; ends whatever is still there."""
        import ray

        for actor in self._actors.values():
            ray.kill(actor)

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


def _answer_of(host: Host, answer: Any) -> list[int]:
    """The ports that `RayActor.open` found; LaunchError if the host lacks something."""
    import ray

    try:
        lacks, found = ray.get(answer)
    except ray.exceptions.RayError as error:
        raise LaunchError(f"host {host.address} cannot start an actor: {reason(error)}") from None
    if lacks:
        raise LaunchError(f"host {host.address} {lacks}")
    return found


def reason(error: Exception) -> str:
    """The last line of what Ray says: the cause, after where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
