"""Runs a program inside a Slurm job: one step for each node."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import launchpad as lp

from classact.experiments.config import ClusterConfig
from classact.launch.cluster import Key, needs_of, resources_of_kinds
from classact.launch.crash_report import describe_exit
from classact.launch.engine import Crash, Ended, Engine, Patience, awaited_names
from classact.launch.on_host import Finished
from classact.launch.outcome import LaunchError, Outcome, TaskEnd
from classact.launch.placement import Host, Needs, place
from classact.launch.slurm_info import Allocation, check_commands, read_allocation
from classact.launch.task import Task
from classact.launch.tasks import make_tasks, remove_data_files

# How long a step may wait for its share of the job: it is there, unless something
# else in the job holds it.
_STEP_SECONDS = 60
_PROBE_SECONDS = 120.0
# What `on_host` may take to tell how a task ended that it had to end itself.
_TELL_SECONDS = 4.0
# How long srun may take to hear of an end that the host has told already.
_HEAR_SECONDS = 10.0
# How long srun may take to end a step that is killed.
_REAP_SECONDS = 15.0
# Of the job's environment, what srun must know. The rest are the batch script's own
# options, which srun would take for the step's.
_KEPT = ("SLURM_CONF", "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_WORKING_CLUSTER")


def run_steps(
    program: lp.Program,
    cluster: ClusterConfig,
    workdir: Path,
    *,
    job_id: str,
    until: Collection[str],
    events: queue.SimpleQueue[Any],
    patience: Patience = Patience(),  # noqa: B008 - it is frozen.
    on_start: Callable[[], None] | None = None,
) -> Outcome:
    """Runs a program on the hosts of a job until the awaited nodes have ended.

    A node is a step with its own CPUs, memory and GPUs, in which `on_host` runs it.
    The end of the step's input asks it to stop; it comes from here, or because this
    process died. A step that Slurm ends (a cancelled job, a host taken away) stops in
    the same way, and the run is interrupted. `Engine.watch` says what follows.

    Nothing outlives the call but what hangs inside a kernel; that ends with the job.

    Blocks until all is over, setting up at most for a few minutes.

    Args:
      program: what to run.
      cluster: what its nodes need.
      workdir: the run directory; every host must see it under this path.
      job_id: the job that this process runs in.
      until: labels whose nodes' success is the end of the run.
      events: where the caller puts an `Interrupt` for each signal to this process.
      patience: how long to wait for nodes to stop.
      on_start: called once, when all steps are on their way.

    Returns:
      How the run ended; `peak_bytes` is the sum of the nodes' peaks.

    Raises:
      LaunchError: before any node is started, if the job's hosts have no room, or a
        host does not answer.
    """
    check_commands(["srun", "scontrol"])
    allocation = read_allocation(job_id)
    needs = needs_of(cluster, program.groups, allocation.threads_per_core)
    hosts = place(needs, allocation.hosts)
    print(_placement(hosts), flush=True)
    tasks = make_tasks(
        program,
        workdir=workdir,
        ports=_find_ports(program, allocation, hosts),
        place=lambda label, index: hosts[label, index].name,
        address_of={host.name: host.address for host in allocation.hosts}.__getitem__,
        resources=resources_of_kinds(cluster, program.groups),
    )
    try:
        awaited = awaited_names(until, {task.name: task.label for task in tasks})
        commands = {
            task.name: step_command(allocation, task.host, needs[task.label, task.index], task.name)
            for task in tasks
        }
        engine = _Steps(tasks, commands, awaited, patience, events)
        try:
            engine.start()
            if on_start is not None:
                on_start()
            return engine.measured(engine.watch())
        finally:
            engine.abort()
            engine.close()
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
        f"--gres=gpu:{need.gpus}" if need.gpus else "--gres=none",
        f"--immediate={_STEP_SECONDS}",
        "--kill-on-bad-exit=1",
        "--unbuffered",
        "--mpi=none",
        "--export=ALL",
        f"--chdir={os.getcwd()}",
    ]


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for `srun`: without the options of the job, which are not the step's."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("SLURM_") or name in _KEPT or "_HET_GROUP_" in name or name == "SLURM_HET_SIZE"
    }


def _placement(hosts: Mapping[Key, Host]) -> str:
    by_host: dict[str, list[str]] = {}
    for (label, index), host in hosts.items():
        by_host.setdefault(host.name, []).append(f"{label} {index}" if index else label)
    return "; ".join(f"{name}: {', '.join(nodes)}" for name, nodes in sorted(by_host.items()))


def _find_ports(
    program: lp.Program, allocation: Allocation, hosts: Mapping[Key, Host]
) -> Callable[[str], int]:
    """Asks each address for as many free ports as it needs; returns what gives them out by host."""
    wanted: dict[str, int] = {}
    asked: dict[str, str] = {}
    for label, nodes in program.groups.items():
        for index, node in enumerate(nodes):
            host = hosts[label, index]
            # Hosts with one address share its ports.
            asked.setdefault(host.address, host.name)
            wanted[host.address] = wanted.get(host.address, 0) + len(node.addresses)
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
            probe += [sys.executable, "-m", "classact.launch.ports", str(count)]
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


class _Steps(Engine):
    """The steps of one run."""

    def __init__(
        self,
        tasks: Sequence[Task],
        commands: Mapping[str, Sequence[str]],
        awaited: Collection[str],
        patience: Patience,
        events: queue.SimpleQueue[Any],
    ) -> None:
        # Hosts keep the notice; the step itself is ended only if its host did not.
        late = dataclasses.replace(patience, stop_notice=patience.stop_notice + _TELL_SECONDS)
        super().__init__([], awaited, late, None)
        self.events = events
        self._tasks = tasks
        self._commands = commands
        self._steps: dict[str, _Step] = {}

    def start(self) -> None:
        for task in self._tasks:
            self._steps[task.name] = _Step(task, self._commands[task.name], self.events)
            self.running.add(task.name)

    def stop(self) -> None:
        for name in self.running:
            self._steps[name].stop()

    def kill(self) -> None:
        for name in self.running:
            self._steps[name].kill()

    def tick(self) -> None:
        for name in self.running:
            self._steps[name].check()

    def reap_seconds(self) -> float:
        return _REAP_SECONDS

    def close(self) -> None:
        """Ends what still runs here of steps that could not be ended."""
        for step in self._steps.values():
            step.close()

    def measured(self, outcome: Outcome) -> Outcome:
        """Returns the outcome with what the tasks used."""
        ends = {name: step.end for name, step in self._steps.items() if step.end is not None}
        return dataclasses.replace(
            outcome,
            cpu_seconds=sum(end.cpu_seconds for end in ends.values()),
            peak_bytes=sum(end.peak_bytes for end in ends.values()),
            tasks=ends,
        )


class _Step:
    """A task's step. Its own thread waits for the end of its `srun` and puts it on the queue."""

    def __init__(self, task: Task, command: Sequence[str], events: queue.SimpleQueue[Any]) -> None:
        self.end: TaskEnd | None = None
        self._task = task
        self._told_at: float | None = None
        self._deaf = False
        saved = task.data_file.with_name(f"{task.name}.json")
        self._end_path = saved.with_suffix(".end.json")
        self._files = (saved, self._end_path)
        task.save(saved)
        self._srun = subprocess.Popen(
            [*command, sys.executable, "-m", "classact.launch.on_host", str(saved), str(self._end_path)],
            env=step_environment(os.environ),
            # Held open as long as the step is to run.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal must reach the launcher alone.
            start_new_session=True,
        )
        threading.Thread(target=self._wait, args=(events,), name=f"wait-{task.name}", daemon=True).start()

    def stop(self) -> None:
        """Asks the task to stop: srun passes the end of its input on."""
        assert self._srun.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._srun.stdin.close()

    def kill(self) -> None:
        """Ends the step at once; that is what srun does when it is terminated."""
        self._srun.terminate()

    def check(self) -> None:
        """Gives srun up if the host has told the task's end long ago, and srun has not heard of it."""
        now = time.monotonic()
        if self._told_at is None:
            self._told_at = now if self._end_path.exists() else None
        elif now - self._told_at > _HEAR_SECONDS:
            self._deaf = True
            self._kill_srun()

    def close(self) -> None:
        """Ends srun itself, and removes the step's files."""
        self._kill_srun()
        for path in self._files:
            path.unlink(missing_ok=True)

    def _kill_srun(self) -> None:
        if self._srun.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._srun.pid, signal.SIGKILL)

    def _wait(self, events: queue.SimpleQueue[Any]) -> None:
        assert self._srun.stdout is not None
        said = self._srun.stdout.read().decode("utf-8", "replace").strip()
        status = self._srun.wait()
        ended = None
        with contextlib.suppress(OSError, ValueError):
            finished = Finished.load(self._end_path)
            self.end, ended = finished.end, finished.ended
        # A task that stops because its host has lost the launcher ends well, for its host.
        if ended is None or (status != 0 and ended.crash is None and ended.signal is None):
            srun = "did not hear of the step's end" if self._deaf else describe_exit(status)
            task, last = self._task, (said.splitlines() or [f"srun: {srun}"])[-1]
            message = f"task {task.name} was lost on {task.host}: {last}; log: {task.log_path}"
            ended = Ended(task.name, Crash(message, said))
        events.put(ended)
