"""What a run writes of itself as a whole: `config.json` when it begins, `result.json` when it has ended."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

from classact import environments
from classact.experiments import curves
from classact.launch.assembly.parts import costs, scored
from classact.launch.commands import resume
from classact.launch.commands.prepared import Prepared
from classact.launch.engines import isolation
from classact.launch.engines.outcome import Outcome

_VERSIONS = ("jax", "flax", "optax", "dm-haiku", "numpy")


def write_config(prepared: Prepared, engine: str) -> None:
    """Writes the resolved configuration, with what made it and what it was started with.

    Raises:
        OSError: if it cannot be written.
    """
    fields = {**prepared.config.to_dict(), **_provenance(engine, prepared)}
    write_json(prepared.workdir / "config.json", fields)


def write_result(prepared: Prepared, outcome: Outcome, wall_seconds: float, cpu_seconds: float) -> None:
    """Writes how a run has ended, its last figures and what it has cost.

    Args:
        prepared: the run.
        outcome: how it ended.
        wall_seconds: all its sessions together.
        cpu_seconds: likewise, of all its processes.

    Raises:
        OSError: if it cannot be written.
    """
    config, workdir = prepared.config, prepared.workdir
    learner_lines = _lines(workdir / "metrics" / "learner.jsonl")
    final: dict[str, float] = {}
    for path in sorted((workdir / "metrics").glob("evaluator-*.jsonl")) if learner_lines else []:
        final |= _scalars(_lines(path)[-1:])
    final |= _scalars(learner_lines[-1:])
    completed = outcome.status == "completed"
    steps = config.steps if completed else max((line["step"] for line in learner_lines), default=0)
    last = learner_lines[-1] if learner_lines else {}
    gpu_seconds = costs.device_seconds(workdir)
    before = prepared.earlier or resume.Earlier()
    write_json(
        workdir / "result.json",
        {
            "status": outcome.status,
            "steps": steps,
            "final": final,
            **costs.account(config, prepared.data, workdir, steps, last),
            "wall_seconds": wall_seconds,
            "cpu_seconds": cpu_seconds,
            "cpu_seconds_by_kind": _cpu_seconds_by_kind(outcome, before, cpu_seconds),
            "gpu_seconds": sum(gpu_seconds.values(), 0.0),
            "gpu_seconds_by_kind": gpu_seconds,
            "cpu_seconds_by_node": {name: end.cpu_seconds for name, end in outcome.tasks.items()},
            "peak_bytes": outcome.peak_bytes,
            "peak_bytes_by_node": {name: end.peak_bytes for name, end in outcome.tasks.items()},
            "restarts": dict(outcome.restarts),
            "message": outcome.message,
            "diverged": outcome.diverged,
        },
    )


def _cpu_seconds_by_kind(outcome: Outcome, before: resume.Earlier, cpu_seconds: float) -> dict[str, float]:
    """Processor time of all sessions by the kind of node.

    What no node has is the launcher's, and all of it where the run is one process.
    """
    nodes = [(name.split("-")[0], end.cpu_seconds) for name, end in outcome.tasks.items()]
    rest = cpu_seconds - before.cpu_seconds - sum(seconds for _, seconds in nodes)
    found = dict(before.cpu_seconds_by_kind)
    for kind, seconds in (*nodes, ("launcher" if nodes else "one_process", rest)):
        found[kind] = found.get(kind, 0.0) + seconds
    return found


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    return curves.history(curves.read_metrics(path))


def _scalars(lines: list[dict[str, Any]]) -> dict[str, float]:
    return {name: value for line in lines for name, value in line.items() if name not in ("step", "time")}


def _provenance(engine: str, prepared: Prepared) -> dict[str, Any]:
    root = pathlib.Path(__file__).resolve().parents[2]
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
            **environments.versions(),
            **{n: importlib.metadata.version(n) for n in _VERSIONS},
        },
        # What those who join the run later must find the same; see `attach_actors`.
        "started": {
            "host": platform.node(),
            "directory": os.getcwd(),
            "isolated": isolation.described(),
            "data": {name: shape.described() for name, shape in prepared.data.items()},
            "eval_data": dict(prepared.evaluated),
            "weights": dict(prepared.weights),
            "scores": {name: scored.identities(own) for name, own in prepared.config.data_sets.items()},
        },
    }


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes whole or not at all, so that a reader never sees half a file."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
