"""One experiment from its configuration to its `result.json`."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import queue
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from classact.data import captions, specs
from classact.experiments import curves, ledger
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch import (
    class_meaning,
    data_checks,
    devices,
    evaluators,
    folders,
    held_out,
    identity,
    isolation,
    parts,
    processes,
    program,
    ray_cluster,
    resume,
    slurm,
    slurm_info,
    slurm_job,
    text_lines,
    threads,
    traced,
)
from classact.launch.engine import Patience
from classact.launch.first_lines import FirstLines, describe_source
from classact.launch.interrupts import interrupts_to
from classact.launch.outcome import LaunchError, Outcome
from classact.launch.ports import LoopbackPorts
from classact.launch.progress import Progress
from classact.launch.resources import Resources
from classact.launch.restarts import Restarts
from classact.launch.synchronous import run_synchronous
from classact.launch.tasks import endpoints, make_tasks
from classact.nodes import checkpoints, opening
from classact.selection import policies

LAUNCHES = ("processes", "threads", "slurm", "ray", "synchronous")
CLUSTERS = ("slurm", "ray")
_ONE_PROCESS = ("threads", "synchronous")
# With the learner on this machine.
_HERE = ("processes", "threads")
_VERSIONS = ("dm-launchpad", "dm-reverb", "tensorflow-cpu", "jax", "flax", "optax", "dm-haiku", "numpy")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that has passed every check that can be made before it starts."""

    config: ExperimentConfig
    workdir: pathlib.Path
    data: Mapping[str, parts.DataShape]
    earlier: resume.Earlier | None = None
    # What the user is told before anything starts.
    first_lines: Sequence[str] = ()
    # By evaluator what `config.json` says of its data.
    evaluated: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@specs.opened_once()
def prepare(config: ExperimentConfig, workdir: pathlib.Path, engine: str) -> Prepared:
    """Checks all that can be checked before any process starts.

    Opens the data sets, shapes the models (without computing), reads the
    reference. Writes nothing.

    Args:
        config: the resolved configuration.
        workdir: the run directory; one that holds a run of the same configuration lets
            that run go on.
        engine: one of `LAUNCHES`.

    Raises:
        ConfigError: for a field that cannot be run, or a work directory with another run.
        source.DataError: for data that is missing, damaged or of the wrong kind.
    """
    if engine in _ONE_PROCESS and config.mesh.hosts > 1:
        raise ConfigError(
            f"mesh.hosts={config.mesh.hosts}: must be 1 with --launch={engine}, which is one process"
        )
    if config.mesh.hosts > 1 and isolation.is_inside() and not isolation.name_is_loopback():
        raise ConfigError(
            f"mesh.hosts={config.mesh.hosts}: with --isolate this machine's name must be an address of "
            "loopback, by a line such as '127.0.1.1 NAME' in /etc/hosts"
        )
    if engine == "synchronous" and config.mesh.fsdp > 1:
        raise ConfigError(f"mesh.fsdp={config.mesh.fsdp}: must be 1 with --launch={engine}, for one device")
    folders.check_work_directory(workdir)
    earlier = resume.earlier(config, workdir)
    if engine == "synchronous" and earlier is not None and not earlier.completed:
        raise ConfigError(
            f"workdir={str(workdir)!r} holds a run, and --launch=synchronous cannot go on with one: "
            "name another workdir"
        )
    said = FirstLines()
    data = {name: _checked_data_set(config, name, engine, said) for name in config.data_sets}
    data = class_meaning.agreed(config, data, None if earlier is None else workdir, said)
    shape = _common_shape(data)
    traced.check_models(config, shape)
    try:
        parts.trained_models(config, shape)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    parts.make_task(config)
    for model in parts.make_models(config, shape).values():
        try:
            parts.forward_macs(model, config, shape)
        except ValueError as error:
            raise ConfigError(f"model {model.name!r} for {shape.name} {shape.image_shape}: {error}") from None
    for name, own in config.data_sets.items():
        parts.check_reference(config, own, data[name], said)
        traced.check_scores(config, own, data[name])
    for evaluator in config.evaluation.evaluators.values():
        evaluators.make_measure(config, evaluator, shape, said)
    if engine in _HERE:
        devices.check(config)
    checked = identity.check(config, workdir, data, said)
    return Prepared(config, workdir.absolute(), checked.data, earlier, said.lines(), checked.evaluated)


def _checked_data_set(config: ExperimentConfig, name: str, engine: str, said: FirstLines) -> parts.DataShape:
    own = config.data_sets[name]
    started = time.monotonic()
    train = parts.open_train_source(config, own)
    seconds = time.monotonic() - started
    for line in (*describe_source(train), *held_out.describe(config, train)):
        said.say(line)
    if seconds > opening.SLOW_SECONDS:
        said.say(f"  opening it took {seconds:.0f} s; each run loop opens it again before its first batch")
    if isinstance(train, captions.Tokenized):
        text_lines.say_what_is_cut(train, said)
    readers = own.inference.servers * own.inference.run_loops
    if train.num_examples < readers:
        raise ConfigError(
            f"inference.servers · inference.run_loops = {readers}: must be at most {train.num_examples}, "
            f"the examples of {train.name}: each run loop reads its own"
        )
    data_checks.check_labels(train, said)
    shape = parts.data_shape(config, train)
    nodes = engine != "synchronous"
    # A cluster's hosts have other memory than this one.
    memory = None if engine in CLUSTERS else data_checks.machine_memory()
    data_checks.check_sizes(name, own, train, shape.codec.num_bytes, said, nodes=nodes, memory=memory)
    return shape


def _common_shape(data: Mapping[str, parts.DataShape]) -> parts.DataShape:
    """What one model can be built for; ConfigError if the data sets differ in it."""
    (first, shape), *others = data.items()
    for name, other in others:
        if shape.image_shape != other.image_shape:
            raise ConfigError(
                f"data_sets {first} and {name} differ in image_shape: "
                f"{shape.image_shape} and {other.image_shape}; one model learns from both"
            )
    return shape


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
    _write_json(workdir / "config.json", {**config.to_dict(), **_provenance(engine, prepared)})
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
            _write_result(prepared, outcome, wall_seconds, before.cpu_seconds + cpu_seconds)
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
        _write_json(workdir / "endpoints.json", found)

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
    with LoopbackPorts() as ports:
        resources = _resources(config, built.groups)
        tasks = make_tasks(built, workdir=workdir, ports=ports, resources=resources)
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


def _write_result(prepared: Prepared, outcome: Outcome, wall_seconds: float, cpu_seconds: float) -> None:
    config, workdir = prepared.config, prepared.workdir
    learner_lines = _lines(workdir / "metrics" / "learner.jsonl")
    final: dict[str, float] = {}
    for path in sorted((workdir / "metrics").glob("evaluator-*.jsonl")) if learner_lines else []:
        final |= _scalars(_lines(path)[-1:])
    final |= _scalars(learner_lines[-1:])
    completed = outcome.status == "completed"
    steps = config.steps if completed else max((line["step"] for line in learner_lines), default=0)
    _write_json(
        workdir / "result.json",
        {
            "status": outcome.status,
            "steps": steps,
            "final": final,
            "ledger": _ledger(prepared, steps, learner_lines),
            "wall_seconds": wall_seconds,
            "cpu_seconds": cpu_seconds,
            "cpu_seconds_by_node": {name: end.cpu_seconds for name, end in outcome.tasks.items()},
            "peak_bytes": outcome.peak_bytes,
            "peak_bytes_by_node": {name: end.peak_bytes for name, end in outcome.tasks.items()},
            "restarts": dict(outcome.restarts),
            "message": outcome.message,
            "diverged": outcome.diverged,
        },
    )


def _ledger(prepared: Prepared, steps: int, learner_lines: list[dict[str, Any]]) -> dict[str, float]:
    """The sum of the data sets' ledgers; each reference's pretraining counts once."""
    config = prepared.config
    shape = next(iter(prepared.data.values()))
    models = parts.make_models(config, shape)
    scorer = models.get("online") or models.get("reference")
    macs = {
        "learner_macs": parts.forward_macs(models["learner"], config, shape),
        "scorer_macs": parts.forward_macs(scorer, config, shape) if scorer else 0.0,
    }
    last = learner_lines[-1] if learner_lines else {}
    pretrained: set[str] = set()
    parts_of = []
    for name, own in config.data_sets.items():
        policy = policies.get(own.policy)
        scored, pretraining = 0, 0.0
        if policy.scores:
            inserts = last.get(f"replay/{name}/inserts", last.get("replay/inserts", 0))
            scored = int(max(steps * own.super_batch_size, inserts))
        if policy.reference == "fixed" and own.reference.checkpoint not in pretrained:
            pretrained.add(own.reference.checkpoint)
            reference = curves.load_run(own.reference.checkpoint)
            pretraining = float(reference.ledger.get("total_macs", 0.0))
        parts_of.append(
            ledger.run_ledger(
                policy,
                **macs,
                updates=steps,
                batch_size=own.batch_size,
                examples_scored=scored,
                super_batch_size=own.reference.super_batch,
                reference_pretraining_macs=pretraining,
            )
        )
    return ledger.add(parts_of)


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    return curves.history(curves.read_metrics(path))


def _scalars(lines: list[dict[str, Any]]) -> dict[str, float]:
    return {name: value for line in lines for name, value in line.items() if name not in ("step", "time")}


def _provenance(engine: str, prepared: Prepared) -> dict[str, Any]:
    root = pathlib.Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        commit = git.stdout.strip()
    # No git, or no repository: the package may have been installed from a wheel.
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    return {
        "launch": engine,
        "git_commit": commit,
        "versions": {
            "python": platform.python_version(),
            **{n: importlib.metadata.version(n) for n in _VERSIONS},
        },
        # What those who join the run later must find the same; see `attach_actors`.
        "started": {
            "host": platform.node(),
            "directory": os.getcwd(),
            "isolated": isolation.described(),
            "data": {name: shape.described() for name, shape in prepared.data.items()},
            "eval_data": dict(prepared.evaluated),
        },
    }


def _write_json(path: pathlib.Path, value: Any) -> None:
    """Writes whole or not at all, so that a reader never sees half a file."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
