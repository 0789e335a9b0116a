"""What the configuration gives each node of a program on a cluster, for every cluster engine."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from classact.experiments.config import ClusterConfig
from classact.launch.engines.gpus import memory_limit
from classact.launch.engines.placement import Needs
from classact.launch.engines.resources import Resources

Key = tuple[str, int]


def needs_of(
    cluster: ClusterConfig, groups: Mapping[str, Collection[object]], threads_per_core: int = 1
) -> dict[Key, Needs]:
    """What each node needs of its host.

    Args:
      cluster: fields by the first part of a label.
      groups: the program's nodes by label.
      threads_per_core: CPUs of a core where the cluster gives out whole cores; a
        node's CPUs are rounded up to them.

    Returns:
      Needs by (label, index in the group), in the program's order.
    """
    needs = {}
    for label, nodes in groups.items():
        own = getattr(cluster, _kind(label))
        cpus = math.ceil(own.cpus / threads_per_core) * threads_per_core
        for index in range(len(nodes)):
            needs[label, index] = Needs(cpus, own.memory_gb, own.gpus, own.partition)
    return needs


def resources_of_kinds(cluster: ClusterConfig, labels: Collection[str]) -> dict[str, Resources]:
    """What the nodes of each kind may use: as many threads as CPUs, and no GPU that they did not ask for."""
    kinds = dict.fromkeys(map(_kind, labels))
    return {kind: _resources(cluster, kind) for kind in kinds}


def _resources(cluster: ClusterConfig, kind: str) -> Resources:
    own = getattr(cluster, kind)
    if own.gpus:
        return Resources(threads=own.cpus, env=memory_limit(own.gpus))
    return Resources(threads=own.cpus, jax_platforms="cpu", cuda_visible_devices="")


def _kind(label: str) -> str:
    return label.split("/")[0]
