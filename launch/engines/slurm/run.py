"""Runs a program inside a Slurm job: one step for each node."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from classact.launch.engines.cluster import Key, needs_of, resources_of_kinds
from classact.launch.engines.interface import Job
from classact.launch.engines.outcome import LaunchError, Outcome
from classact.launch.engines.placement import Host, Needs, place
from classact.launch.engines.slurm.info import Allocation, check_commands, read_allocation
from classact.launch.engines.slurm.steps import Steps, step_environment
from classact.launch.engines.supervisor import Supervisor
from classact.launch.engines.task import remove_data_files

# How long a step may wait for its share of the job: it is there, unless something
# else in the job holds it.
_STEP_SECONDS = 60
_PROBE_SECONDS = 120.0


def run_steps(run: Job, job_id: str) -> Outcome:
    """Runs a program on the hosts of a job until the awaited nodes have ended.

    A node is a step with its own CPUs, memory and GPUs, in which `on_host` runs it.
    The end of the step's input asks it to stop; it comes from here, or because this
    process died. A step that Slurm asks to stop (a cancelled or preempted job, a host
    taken away) tells it at once, and the run is interrupted. It may be the learner's,
    which then stops; another waits until it is asked from here, for at most half the
    notice. `Supervisor.watch` says what follows.

    A node that died is started again as another step on the same host. That is tried
    also where the host does not answer, but Slurm takes a host that is down from the
    job for good, and then the run fails.

    Nothing outlives the call but what hangs inside a kernel; that ends with the job.

    Blocks until all is over, setting up at most for a few minutes.

    Args:
      run: to run; every host must see its directory under the same path. Signals to this
        process are on its `signals`.
      job_id: the Slurm job that this process runs in.

    Returns:
      How the run ended; `peak_bytes` is the sum of the nodes' peaks.

    Raises:
      LaunchError: before any node is started, if the job's hosts have no room, or a
        host does not answer.
    """
    check_commands(["srun", "scontrol"])
    allocation = read_allocation(job_id)
    needs = needs_of(run.config.on_cluster, run.servers, allocation.threads_per_core)
    hosts = place(needs, allocation.hosts)
    print(_placement(hosts), flush=True)
    tasks = run.make_tasks(
        ports=_find_ports(run.servers, allocation, hosts),
        place=lambda label, index: hosts[label, index].name,
        address_of={host.name: host.address for host in allocation.hosts}.__getitem__,
        resources=resources_of_kinds(run.config.on_cluster, run.servers),
    )
    try:
        awaited = run.terms.awaited(run.labels)
        commands = {
            task.name: step_command(allocation, task.host, needs[task.label, task.index], task.name)
            for task in tasks
        }
        steps = Steps(
            tasks,
            commands,
            awaited,
            run.terms.patience.stop_notice,
            lambda: [host.name for host in read_allocation(job_id).hosts],
            run.signals,
        )
        with contextlib.closing(steps):
            return Supervisor(steps, run.labels, run.terms, run.signals).run().with_summed_peaks()
    finally:
        remove_data_files(tasks)


def step_command(allocation: Allocation, host: str, need: Needs, name: str) -> list[str]:
    """The `srun` of a step, up to what it runs.

    Not `--overlap`: steps that overlap are given the same GPU.

    Args:
      allocation: of the job.
      host: name of the host.
      need: what the step has of it.
      name: of the step.
    """
    memory = f"{math.ceil(need.memory_gb * 1024)}M" if need.memory_gb else "0"  # 0: what the job has.
    group = allocation.het_groups.get(host)
    return [
        "srun",
        f"--jobid={allocation.job_id}",
        *([] if group is None else [f"--het-group={group}"]),
        f"--job-name={name}",
        "--exact",
        "--nodes=1",
        "--ntasks=1",
        f"--nodelist={host}",
        f"--cpus-per-task={need.cpus}",
        f"--mem={memory}",
        f"--gres=gpu:{need.gpus:g}" if need.gpus else "--gres=none",
        f"--immediate={_STEP_SECONDS}",
        "--kill-on-bad-exit=1",
        "--unbuffered",
        "--mpi=none",
        "--export=ALL",
        f"--chdir={os.getcwd()}",
    ]


def _placement(hosts: Mapping[Key, Host]) -> str:
    by_host: dict[str, list[str]] = {}
    for (label, index), host in hosts.items():
        by_host.setdefault(host.name, []).append(f"{label} {index}" if index else label)
    return "; ".join(f"{name}: {', '.join(nodes)}" for name, nodes in sorted(by_host.items()))


def _find_ports(
    servers: Mapping[str, Sequence[int]], allocation: Allocation, hosts: Mapping[Key, Host]
) -> Callable[[str], int]:
    """Asks each address for as many free ports as it needs; returns what gives them out by host."""
    wanted: dict[str, int] = {}
    asked: dict[str, str] = {}
    for label, counts in servers.items():
        for index, count in enumerate(counts):
            host = hosts[label, index]
            # Hosts with one address share its ports.
            asked.setdefault(host.address, host.name)
            wanted[host.address] = wanted.get(host.address, 0) + count
    probes = {}
    with contextlib.ExitStack() as stack:
        for address, count in wanted.items():
            if not count:
                continue
            # It computes nothing, so it may share what the steps beside it have.
            probe = [
                *step_command(allocation, asked[address], Needs(cpus=allocation.threads_per_core), "ports"),
                "--overlap",
            ]
            probe += [sys.executable, "-m", "classact.launch.engines.ports", str(count)]
            probes[address] = stack.enter_context(_started(probe))
        found = {address: _ports_of(asked[address], probe) for address, probe in probes.items()}
    address_of = {host.name: host.address for host in allocation.hosts}
    return lambda host: next(found[address_of[host]])


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        env=step_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _ports_of(host: str, probe: subprocess.Popen[str]) -> Iterator[int]:
    try:
        said, complaint = probe.communicate(timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"host {host} did not answer within {_PROBE_SECONDS:.0f} s") from None
    if probe.returncode != 0:
        raise LaunchError(f"host {host} cannot run a step: {' '.join((said + complaint).split())[-500:]}")
    return iter([int(port) for port in said.split()])
