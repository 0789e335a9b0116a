"""Which node of a program runs on which host of a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from classact.launch.engines import gpus as gpus_lib
from classact.launch.engines.outcome import LaunchError


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a node needs of its host.

    Attributes:
      cpus: processor cores of its own.
      memory_gb: memory, in GB; 0: whatever is there.
      gpus: accelerators of its own: whole ones, or a share of one's memory.
      partition: name of the part of the cluster that it must run in; "" for any.
    """

    cpus: int = 1
    memory_gb: float = 0.0
    gpus: float = 0
    partition: str = ""

    def __str__(self) -> str:
        parts = [f"{self.cpus} CPUs"]
        parts += [f"{self.memory_gb:g} GB"] if self.memory_gb else []
        parts += [f"{self.gpus:g} GPUs"] if self.gpus else []
        parts += [f"in partition {self.partition!r}"] if self.partition else []
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Host:
    """A host of the cluster and what of it the run may use.

    Attributes:
      name: as the engine calls it.
      address: name or number at which other hosts reach it.
      cpus: processor cores.
      memory_gb: memory, in GB.
      gpus: accelerators; what is below a whole one is free of one.
      partitions: names of the parts of the cluster that it belongs to.
    """

    name: str
    address: str
    cpus: int
    memory_gb: float
    gpus: float = 0
    partitions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.cpus} CPUs, {self.memory_gb:g} GB, {self.gpus:g} GPUs)"


def place[Key](needs: Mapping[Key, Needs], hosts: Sequence[Host]) -> dict[Key, Host]:
    """Gives every node a host; nodes share one only as long as all of them fit.

    Those that are hardest to place come first: accelerators, then a partition,
    then cores, then memory. Each goes where most cores are left, so that the program spreads; hosts
    with accelerators are kept for the nodes that need some, if the others suffice.

    Args:
      needs: of each node.
      hosts: the cluster's.

    Returns:
      The host of each node, in the order of `needs`.

    Raises:
      LaunchError: if a node fits nowhere; names it and what the hosts have left.
    """
    whole = {host.name: host for host in hosts}
    left = dict(whole)
    found: dict[Key, str] = {}
    given: dict[str, list[float]] = {host.name: [] for host in hosts}
    for key in sorted(needs, key=lambda key: _difficulty(needs[key]), reverse=True):
        need = needs[key]
        fitting = [
            host
            for host in left.values()
            if _fits(need, host) and gpus_lib.fit([*given[host.name], need.gpus], whole[host.name].gpus)
        ]
        if not fitting:
            free = "; ".join(str(host) for host in left.values()) or "none"
            raise LaunchError(f"no host has room for {_text(key)}, which needs {need}; left are: {free}")
        # `max` takes the first of equals: the hosts' own order decides.
        best = max(fitting, key=lambda host: (need.gpus > 0 or whole[host.name].gpus == 0, host.cpus))
        found[key] = best.name
        given[best.name].append(need.gpus)
        left[best.name] = dataclasses.replace(
            best,
            cpus=best.cpus - need.cpus,
            memory_gb=best.memory_gb - need.memory_gb,
            gpus=best.gpus - need.gpus,
        )
    return {key: whole[found[key]] for key in needs}


def _difficulty(need: Needs) -> tuple[float, bool, int, float]:
    return need.gpus, bool(need.partition), need.cpus, need.memory_gb


def _fits(need: Needs, host: Host) -> bool:
    return (
        host.cpus >= need.cpus
        and host.memory_gb >= need.memory_gb
        and (not need.partition or need.partition in host.partitions)
    )


def _text(key: object) -> str:
    return f"{key[0]} {key[1]}" if isinstance(key, tuple) else str(key)
