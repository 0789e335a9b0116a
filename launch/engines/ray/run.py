"""`--launch=ray`: runs a program on a running Ray cluster, one actor a node, which starts the node's process.

Ray keeps the account of what is taken, starts the actors and notices lost hosts.
`placement.place` chooses the hosts, since the servers' addresses must be known
before the program is serialised; each actor is pinned to its host.

Nothing outlives a killed launcher: Ray ends the actors of a driver that is gone,
and the kernel ends an actor's process with the actor (`guard.py`).

Ray is imported where it is used: other engines do without it.
"""

from __future__ import annotations

import contextlib
import queue
from typing import Any

from classact.launch.engines.cluster import needs_of, resources_of_kinds
from classact.launch.engines.interface import Engine, Job
from classact.launch.engines.interrupts import Interrupt
from classact.launch.engines.outcome import Outcome
from classact.launch.engines.placement import place
from classact.launch.engines.ray.info import connected, free_hosts
from classact.launch.engines.ray.reservation import Reservation
from classact.launch.engines.ray.tasks import ActorTasks
from classact.launch.engines.supervisor import Supervisor
from classact.launch.engines.task import remove_data_files


class Ray(Engine):
    """Every node is the work of an actor."""

    several_hosts = True

    def run(self, job: Job) -> Outcome:
        """See `run_actors`."""
        return run_actors(job)


def run_actors(job: Job) -> Outcome:
    """Runs a program on the cluster at RAY_ADDRESS, or else on the one of this machine.

    What a task's end, `until` and the notice mean is as in `run_processes`. A lost
    host is the crash of its tasks, which cannot be started again: Ray would know a
    host that came back by another name. Nothing outlives the call. Blocks until all
    is over; call it from the main thread, on a machine of the cluster.

    Args:
      job: what to run. A partition is a Ray resource that its hosts have, whatever its amount.
        Every host must see the run directory under this path, and the launcher's Python and
        current directory under theirs.

    Returns:
      How the run ended. Its `peak_bytes` is the sum of the tasks' peaks.

    Raises:
      LaunchError: before any task is started, if Ray is not installed, no cluster
        answers within seconds, a node fits nowhere, or a host lacks something or
        starts no actor within two minutes.
      RuntimeError: outside the main thread.
    """
    cluster = job.config.on_cluster
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    tasks = ActorTasks(job.terms.patience.stop_notice, events)
    watcher = Supervisor(tasks, job.labels, job.terms, events)
    with connected():
        needs = needs_of(cluster, job.servers)
        hosts = free_hosts(cluster.hosts)
        placed = place(needs, list(hosts.values()))
        with watcher.interrupts(), contextlib.closing(Reservation(needs, placed, hosts)) as reservation:
            ports = reservation.open(job.workdir, job.servers, events)
            if isinstance(ports, Interrupt):
                return Outcome("interrupted", message=f"stopped by {ports.name}", signal=ports.signal)
            free = ports
            addresses = {host.name: host.address for host in placed.values()}
            made = job.make_tasks(
                ports=lambda host: free[host].pop(),
                place=lambda label, index: placed[label, index].name,
                address_of=lambda host: addresses[host],
                resources=resources_of_kinds(cluster, job.servers),
            )
            try:
                with tasks.given(made, reservation):
                    return watcher.run().with_summed_peaks()
            finally:
                remove_data_files(made)
