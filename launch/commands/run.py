"""One experiment from its configuration to its `result.json`."""

import contextlib
import dataclasses
import pathlib
import sys
import time

from classact.experiments.config import ExperimentConfig
from classact.launch import program
from classact.launch.assembly.jobs import make_job
from classact.launch.commands import resume, run_files
from classact.launch.commands.prepared import Prepared, prepare
from classact.launch.commands.progress import Progress
from classact.launch.engines import folders, registry
from classact.launch.engines.interface import Engine, Job
from classact.launch.engines.interrupts import interrupts_to
from classact.launch.engines.outcome import LaunchError, Outcome
from classact.nodes import checkpoints

__all__ = ["Prepared", "prepare", "run"]

# Runs a saved configuration, for an engine that hands a run to another launcher.
_COMMAND = "classact.launch.commands.submitted"


def run(prepared: Prepared, engine: str) -> Outcome:
    """Runs an experiment, from its newest checkpoint on if there is one; blocks until it has ended.

    An engine may hand it to another launcher (a Slurm job, for instance), which then calls this
    again.

    Args:
        prepared: of `prepare`.
        engine: its name, see `registry`.

    Returns:
        How it ended; `result.json` says the same.

    Raises:
        LaunchError: if it cannot be started, or the work directory cannot be written before
            all nodes are; the work directory may be used again.
    """
    config, workdir = prepared.config, prepared.workdir
    if prepared.earlier is not None and prepared.earlier.completed:
        return Outcome("completed", message=f"it had reached its last step, {config.steps}, before")
    found = registry.get(engine)
    if found.submits():
        with Progress(workdir, config.steps):
            return found.submit(_job(prepared))
    with folders.written(workdir), contextlib.ExitStack() as lock:
        folders.make_work_directory(workdir)
        lock.enter_context(resume.locked(workdir))
        if prepared.earlier is not None:
            step = resume.prepare_files(config, workdir)
            print(f"classact: the run in {workdir} goes on from step {step}", file=sys.stderr, flush=True)
        return _run_here(prepared, engine, found)


def _job(prepared: Prepared) -> Job:
    """The run as its engine gets it."""
    config, workdir = prepared.config, prepared.workdir
    built = program.build_program(config, workdir, prepared.data)
    return make_job(
        built,
        config,
        workdir,
        prepared.data,
        until=(program.LEARNER,),
        on_start=lambda found: run_files.write_json(workdir / "endpoints.json", found),
        command_module=_COMMAND,
        own_environment=prepared.placement.environment,
    )


def _run_here(prepared: Prepared, name: str, engine: Engine) -> Outcome:
    config, workdir = prepared.config, prepared.workdir
    run_files.write_config(prepared, name)
    started = time.monotonic()
    job = _job(prepared)
    with interrupts_to(job.signals) if engine.holds_signals else contextlib.nullcontext():
        try:
            with Progress(workdir, config.steps):
                outcome = engine.run(job)
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
