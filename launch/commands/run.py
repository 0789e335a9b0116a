"""One experiment from its configuration to its `result.json`."""

import contextlib
import dataclasses
import pathlib
import queue
import sys
import time
from collections.abc import Mapping
from typing import Any

from classact.experiments.config import ExperimentConfig
from classact.launch import program
from classact.launch.assembly.synchronous import run_synchronous
from classact.launch.assembly.tasks import endpoints, make_tasks
from classact.launch.commands import resume, run_files
from classact.launch.commands.prepared import CLUSTERS, LAUNCHES, Prepared, prepare
from classact.launch.commands.progress import Progress
from classact.launch.engines import folders, threads
from classact.launch.engines.engine import Patience
from classact.launch.engines.interrupts import interrupts_to
from classact.launch.engines.local import processes
from classact.launch.engines.outcome import LaunchError, Outcome
from classact.launch.engines.ports import LoopbackPorts
from classact.launch.engines.ray import run as ray_cluster
from classact.launch.engines.resources import Resources
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.slurm import info as slurm_info
from classact.launch.engines.slurm import job as slurm_job
from classact.launch.engines.slurm import run as slurm
from classact.launch.engines.sockets import PrivateSockets
from classact.nodes import checkpoints

__all__ = ["CLUSTERS", "LAUNCHES", "Prepared", "prepare", "run"]


def run(prepared: Prepared, engine: str) -> Outcome:
    """Runs an experiment, from its newest checkpoint on if there is one; blocks until it has ended.

    On this machine, unless `engine` is a cluster's. "slurm" outside a job submits one,
    which then calls this again.

    Args:
        prepared: of `prepare`.
        engine: one of `LAUNCHES`.

    Returns:
        How it ended; `result.json` says the same.

    Raises:
        LaunchError: if it cannot be started, or the work directory cannot be written before
            all nodes are; the work directory may be used again.
    """
    config, workdir = prepared.config, prepared.workdir
    if prepared.earlier is not None and prepared.earlier.completed:
        return Outcome("completed", message=f"it had reached its last step, {config.steps}, before")
    if engine == "slurm" and slurm_info.own_job_id() is None:
        groups = program.build_program(config, workdir, prepared.data).groups
        with Progress(workdir, config.steps):
            return slurm_job.run_job(config, workdir, groups)
    with folders.written(workdir), contextlib.ExitStack() as lock:
        folders.make_work_directory(workdir)
        lock.enter_context(resume.locked(workdir))
        if prepared.earlier is not None:
            step = resume.prepare_files(config, workdir)
            print(f"classact: the run in {workdir} goes on from step {step}", file=sys.stderr, flush=True)
        return _run_here(prepared, engine)


def _run_here(prepared: Prepared, engine: str) -> Outcome:
    config, workdir = prepared.config, prepared.workdir
    run_files.write_config(prepared, engine)
    started = time.monotonic()
    signals: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # Slurm ends a job's steps first and then signals their launcher, which has its
    # result still to write.
    with interrupts_to(signals) if engine == "slurm" else contextlib.nullcontext():
        try:
            with Progress(workdir, config.steps):
                if engine == "synchronous":
                    outcome = run_synchronous(config, workdir, prepared.data)
                else:
                    outcome = _run_program(prepared, engine, signals)
        except LaunchError:
            if prepared.earlier is None:
                resume.forget(workdir)
            raise
        outcome = _verified(outcome, config, workdir)
        if outcome.status == "completed":
            resume.remove_tables(workdir)
        # Of this process in all; where there are tasks, these are others.
        cpu_seconds = time.process_time() + (outcome.cpu_seconds if outcome.tasks else 0.0)
        before = prepared.earlier or resume.Earlier()
        wall_seconds = before.wall_seconds + time.monotonic() - started
        try:
            run_files.write_result(prepared, outcome, wall_seconds, before.cpu_seconds + cpu_seconds)
        except OSError as error:
            said = f"{outcome.message}; " if outcome.message else ""
            outcome = dataclasses.replace(
                outcome,
                # What reads the run's result must not find none of a run that is completed.
                status="failed" if outcome.status == "completed" else outcome.status,
                message=f"{said}result.json cannot be written: {error}",
            )
    return outcome


def _run_program(prepared: Prepared, engine: str, signals: queue.SimpleQueue[Any]) -> Outcome:
    config, workdir = prepared.config, prepared.workdir
    built = program.build_program(config, workdir, prepared.data)
    until = (program.LEARNER,)
    patience = Patience(stop_notice=config.stop_notice_seconds)
    restarts = Restarts(config.restarts_per_hour)

    def write_endpoints(found: Mapping[str, list[str]]) -> None:
        run_files.write_json(workdir / "endpoints.json", found)

    if engine == "threads":
        return threads.run_threads(built, until=until, patience=patience, on_start=write_endpoints)
    if engine == "ray":
        return ray_cluster.run_actors(
            built,
            config.cluster,
            workdir,
            until=until,
            patience=patience,
            restarts=restarts,
            on_start=lambda: write_endpoints(endpoints(built)),
        )
    job_id = slurm_info.own_job_id()
    if engine == "slurm" and job_id is not None:
        return slurm.run_steps(
            built,
            config.cluster,
            workdir,
            job_id=job_id,
            until=until,
            events=signals,
            patience=patience,
            restarts=restarts,
            on_start=lambda: write_endpoints(endpoints(built)),
        )
    with LoopbackPorts() as ports, PrivateSockets() as sockets:
        resources = _resources(config, built.groups)
        tasks = make_tasks(built, workdir=workdir, ports=ports, sockets=sockets, resources=resources)
        return processes.run_processes(
            tasks,
            until=until,
            patience=patience,
            restarts=restarts,
            on_start=lambda: write_endpoints(endpoints(built)),
        )


def _resources(config: ExperimentConfig, labels: Any) -> dict[str, Resources]:
    """Thread limits by the first part of each label."""
    kinds = {label.split("/")[0] for label in labels}
    limits = dataclasses.asdict(config.threads)
    return {kind: Resources(threads=limits[kind] or None) for kind in kinds}


def _verified(outcome: Outcome, config: ExperimentConfig, workdir: pathlib.Path) -> Outcome:
    """A run is completed only if its last checkpoint is there; exit codes alone prove nothing."""
    if outcome.status != "completed":
        return outcome
    step = checkpoints.latest_step(workdir / "checkpoints")
    if step == config.steps:
        return outcome
    return dataclasses.replace(
        outcome,
        status="failed",
        message=f"the learner ended, but its last checkpoint is of step {step}, not {config.steps}",
    )
