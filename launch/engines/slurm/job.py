"""Submits a run as a Slurm job, and follows it to its end.

What the job runs is the same run on its own hosts, by the command that `Job.command` gives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import queue
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from classact.experiments.config import ClusterConfig
from classact.launch.engines.cluster import Key, needs_of
from classact.launch.engines.folders import make_work_directory, written
from classact.launch.engines.interface import Job
from classact.launch.engines.interrupts import interrupts_to
from classact.launch.engines.outcome import LaunchError, Outcome
from classact.launch.engines.placement import Host, Needs, place
from classact.launch.engines.slurm import info as slurm_info
from classact.launch.engines.slurm.info import Partition
from classact.launch.engines.slurm.submitted import SubmittedJob

_COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "srun")
# Of the launcher, which runs on the first host beside the nodes.
_LAUNCHER_GB = 1.0
# Before the job's time limit, to stop every node and to write the result; also from
# asking a job to stop to cancelling it. At least, and besides a long notice of the run's.
_NOTICE_SECONDS = 60
_RESULT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Part:
    """Equal hosts of one partition that a job asks for.

    Attributes:
      partition: its name.
      hosts: how many.
      cpus: processor cores of each host.
      memory_gb: memory of each host; 0: what the cluster gives by default.
      gpus: accelerators of each host.
    """

    partition: str
    hosts: int
    cpus: int
    memory_gb: float
    gpus: int

    def options(self) -> list[str]:
        """What it is for `sbatch`."""
        return [
            f"--partition={self.partition}",
            f"--nodes={self.hosts}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={self.cpus}",
            *([f"--mem={math.ceil(self.memory_gb * 1024)}M"] if self.memory_gb else []),
            *([f"--gres=gpu:{self.gpus}"] if self.gpus else []),
        ]


def run_job(run: Job) -> Outcome:
    """Submits a run, and waits until its job has ended, however long it is in the queue.

    The first SIGINT or SIGTERM asks the run to stop, or takes the job out of the
    queue; a second one, or a minute (more if the run's own notice is long), cancels it.
    After SIGHUP the job goes on. A job that Slurm puts into the queue again is followed
    to its next end, unless it was asked to stop.

    Writes the configuration and the batch script to `<workdir>/slurm`; the run writes
    the rest.

    Args:
      run: to submit; every host must see its directory under the same path.

    Returns:
      How the run ended, by its `result.json`; failed if it left none.

    Raises:
      LaunchError: before anything is submitted or written, if Slurm is not here, the
        cluster lacks a partition or room, the work directory cannot be written, or the
        job is refused.
    """
    slurm_info.check_commands(_COMMANDS)
    config, workdir = run.config, run.workdir
    cluster, parts = plan(config.on_cluster, run.servers, slurm_info.partitions())
    fields = dataclasses.replace(config, cluster=cluster).to_dict()
    notice = notice_seconds(config.stop_notice_seconds)
    folder = workdir / "slurm"
    saved, script = folder / "config.json", folder / "job.sbatch"
    command = run.command(saved, "slurm")
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with interrupts_to(events):
        with contextlib.ExitStack() as undo:
            undo.callback(_remove, workdir)
            with written(workdir):
                make_work_directory(workdir)
                make_work_directory(folder)
                saved.write_text(json.dumps(fields, indent=2) + "\n")
                script.write_text(
                    batch_script(workdir, command, parts, cluster.sbatch, cluster.requeue, notice)
                )
            job_id = slurm_info.ask("sbatch", "--parsable", str(script)).strip().split(";")[0]
            undo.pop_all()
        print(f"submitted job {job_id}; its script and output: {folder}", flush=True)
        return SubmittedJob(job_id, workdir, events, notice).follow()


def _remove(workdir: Path) -> None:
    """Takes away what was written for a job that there is not."""
    with contextlib.suppress(OSError):  # Something of the user's is in it, or nothing was made.
        for name in ("config.json", "job.sbatch"):
            (workdir / "slurm" / name).unlink(missing_ok=True)
        (workdir / "slurm").rmdir()
        workdir.rmdir()


def plan(
    cluster: ClusterConfig, groups: Mapping[str, Collection[object]], there: Mapping[str, Partition]
) -> tuple[ClusterConfig, list[Part]]:
    """Says what hosts to ask for.

    Every partition gets as few hosts as have room for its nodes. `cluster.hosts`, if
    it is more, adds hosts one by one where a host has most CPUs to give, up to one a
    node.

    Args:
      cluster: what the nodes need.
      groups: the program's nodes by label.
      there: the cluster's partitions by name.

    Returns:
      The configuration with every partition named, and the job's parts. The first one
      runs the launcher: one without accelerators, if there is one.

    Raises:
      LaunchError: if a partition does not exist or has no room, or the nodes need
        more than `cluster.hosts`.
    """
    cluster = _with_partitions(cluster, groups, there)
    by_partition: dict[str, dict[Key, Needs]] = {}
    plain = needs_of(cluster, groups)
    for key, need in plain.items():
        threads = max(kind.threads_per_core for kind in there[need.partition].kinds)
        by_partition.setdefault(need.partition, {})[key] = needs_of(cluster, groups, threads)[key]
    parts = {name: _smallest(there[name], needs, 1) for name, needs in by_partition.items()}
    while sum(part.hosts for part in parts.values()) < cluster.hosts:
        # The first one that can be spread further.
        for part in sorted(parts.values(), key=lambda part: part.cpus, reverse=True):
            needs = by_partition[part.partition]
            most = min(len(needs), sum(kind.count for kind in there[part.partition].kinds))
            if part.hosts < most:
                parts[part.partition] = _smallest(there[part.partition], needs, part.hosts + 1)
                break
        else:
            break
    total = sum(part.hosts for part in parts.values())
    if cluster.hosts and total > cluster.hosts:
        raise LaunchError(
            f"cluster.hosts={cluster.hosts}: the nodes need {total} hosts (0: as few as have room)"
        )
    ordered = sorted(parts.values(), key=lambda part: part.gpus)
    if ordered[0].memory_gb:
        ordered[0] = dataclasses.replace(ordered[0], memory_gb=ordered[0].memory_gb + _LAUNCHER_GB)
    return cluster, ordered


def notice_seconds(stop_notice: float) -> int:
    """How long a job may take to stop and to write its result, if its run has this notice."""
    return max(_NOTICE_SECONDS, math.ceil(stop_notice) + _RESULT_SECONDS)


def batch_script(
    workdir: Path,
    command: Sequence[str],
    parts: Sequence[Part],
    options: str,
    requeue: bool = False,
    notice: int = _NOTICE_SECONDS,
) -> str:
    """Writes the script of a job, which may be submitted again by hand.

    Args:
      workdir: the run directory, absolute.
      command: what the job runs.
      parts: the hosts to ask for; several make a heterogeneous job.
      options: the user's own for `sbatch`, as typed in a shell; they win.
      requeue: whether Slurm may put the job into the queue again, also for a lost host.
      notice: seconds before its time limit at which the job is asked to stop.
    """
    folder = workdir / "slurm"
    own = [
        f"--job-name=classact-{workdir.name}",
        # "%" begins one of sbatch's own patterns.
        f"--output={str(folder).replace('%', '%%')}/%j.out",
        f"--error={str(folder).replace('%', '%%')}/%j.err",
        f"--chdir={os.getcwd()}",
        # A job that starts again adds to what it said before.
        "--open-mode=append",
        # That a host is lost is for the run to say, unless it can go on with another one.
        *(["--requeue"] if requeue else ["--no-requeue", "--no-kill"]),
        f"--signal=B:TERM@{notice}",
    ]
    lines = ["#!/bin/bash"]
    for index, part in enumerate(parts):
        lines += ["#SBATCH hetjob"] if index else []
        words = [*([] if index else own), *part.options(), *shlex.split(options)]
        lines += [f"#SBATCH {shlex.quote(word)}" for word in words]
    # In the place of the shell: the signal is for the launcher.
    return "\n".join([*lines, f"exec {shlex.join(command)}", ""])


def _with_partitions(
    cluster: ClusterConfig, groups: Mapping[str, Collection[object]], there: Mapping[str, Partition]
) -> ClusterConfig:
    """Names the default partition where none is named; checks the others."""
    default = next((partition.name for partition in there.values() if partition.is_default), "")
    names = ", ".join(sorted(there))
    for kind in dict.fromkeys(label.split("/")[0] for label in groups):
        own = getattr(cluster, kind)
        name = own.partition or default
        field = f"cluster.{kind}.partition={own.partition!r}"
        if not name:
            raise LaunchError(f"{field}: the cluster has no default, name one of: {names}")
        if name not in there:
            raise LaunchError(f"{field}: the cluster has {names}")
        cluster = dataclasses.replace(cluster, **{kind: dataclasses.replace(own, partition=name)})
    return cluster


def _smallest(partition: Partition, needs: Mapping[Key, Needs], hosts: int) -> Part:
    """The least that has room for nodes, on this many hosts of a partition or more."""
    for count in range(hosts, len(needs) + 1):
        part = _uniform(partition.name, needs, count)
        fitting = [
            kind.count
            for kind in partition.kinds
            if kind.cpus >= part.cpus and kind.memory_gb >= part.memory_gb and kind.gpus >= part.gpus
        ]
        if sum(fitting) >= count:
            return part
    has = "; ".join(
        f"{kind.count} with {kind.cpus} CPUs, {kind.memory_gb:g} GB, {kind.gpus} GPUs"
        for kind in partition.kinds
    )
    wanted = "; ".join(dict.fromkeys(f"{key[0]}: {need}" for key, need in needs.items()))
    raise LaunchError(f"partition {partition.name} has no room: its hosts are {has}; the nodes need {wanted}")


def _uniform(name: str, needs: Mapping[Key, Needs], hosts: int) -> Part:
    """The least that each of equal hosts must have for nodes that are placed as the run will place them."""
    every = list(needs.values())
    cpus, gpus = sum(need.cpus for need in every), sum(int(need.gpus) for need in every)
    for per_host_gpus in range(max(-(-gpus // hosts), *(int(need.gpus) for need in every)), gpus + 1):
        for per_host in range(max(-(-cpus // hosts), *(need.cpus for need in every)), cpus + 1):
            equal = [
                Host(str(index), "", per_host, math.inf, per_host_gpus, (name,)) for index in range(hosts)
            ]
            try:
                placed = place(needs, equal)
            except LaunchError:
                continue
            memory = [
                sum(needs[key].memory_gb for key, found in placed.items() if found is host) for host in equal
            ]
            # Without a limit of every node's, the host's is unknown. A MB for rounding.
            limited = all(need.memory_gb for need in every)
            return Part(name, hosts, per_host, max(memory) + 1 / 1024 if limited else 0.0, per_host_gpus)
    raise AssertionError("one host with the sum of all needs has room")
