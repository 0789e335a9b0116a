"""What there is of a Ray cluster: whether it answers, its hosts, what is free on them.

Ray is imported where it is used: other engines do without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
from collections.abc import Iterator

from classact.launch.engines import ports
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.placement import Host


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Makes this process a driver of the cluster at RAY_ADDRESS, or else of the one of this machine.

    As long as the context lasts; what Ray has started for this process ends with it.

    Raises:
      LaunchError: if Ray is not installed, or no cluster answers within seconds.
    """
    try:
        import ray
    except ImportError:
        raise LaunchError(
            "--launch=ray needs Ray, which is not installed: pip install 'classact[ray]'"
        ) from None
    address = _address()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise LaunchError(f"the Ray cluster at {address} cannot be joined: {error}") from None
    try:
        # Ray's own handler, and one in C++ before it that aborts after three seconds.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        yield
    finally:
        ray.shutdown()


def _address() -> str:
    """Returns "host:port" of a cluster that answers: Ray itself would start one, or try for ever."""
    from ray._private import services

    asked = os.environ.get("RAY_ADDRESS") or "auto"
    hint = "start one (ray start), or set RAY_ADDRESS to its host:port, on one of its machines"
    if asked == "local" or "://" in asked:
        raise LaunchError(f"RAY_ADDRESS={asked!r} is no cluster that this machine is part of; {hint}")
    try:
        address = services.canonicalize_bootstrap_address_or_die(asked)
    except (ConnectionError, ValueError):
        raise LaunchError(f"no Ray cluster found with RAY_ADDRESS={asked!r}; {hint}") from None
    if not re.fullmatch(r".+:\d+", address) or not ports.answers(address):
        raise LaunchError(f"no Ray cluster answers at {address}; {hint}")
    return address


def free_hosts(max_hosts: int) -> dict[str, Host]:
    """The cluster's hosts with what is free on them.

    Args:
      max_hosts: return so many, the largest ones; 0: all, in the order of their addresses.

    Returns:
      Hosts by Ray's ids.

    Raises:
      LaunchError: if there are not so many.
    """
    import ray

    free = ray._private.state.available_resources_per_node()
    hosts = {
        node["NodeID"]: Host(
            # Several Ray nodes may be on one machine.
            name=f"{node['NodeManagerAddress']}#{node['NodeID'][:6]}",
            address=node["NodeManagerAddress"],
            cpus=int(free[node["NodeID"]].get("CPU", 0)),
            memory_gb=free[node["NodeID"]].get("memory", 0) / 1e9,
            gpus=float(free[node["NodeID"]].get("GPU", 0)),
            partitions=tuple(node["Resources"]),
        )
        for node in sorted(ray.nodes(), key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))
        if node["Alive"] and node["NodeID"] in free
    }
    if max_hosts > len(hosts):
        raise LaunchError(f"cluster.hosts={max_hosts}: the Ray cluster has {len(hosts)} hosts")
    by_size = sorted(hosts.items(), key=lambda item: (item[1].gpus, item[1].cpus), reverse=True)
    return dict(by_size[:max_hosts]) if max_hosts else hosts
