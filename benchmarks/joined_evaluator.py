"""What an evaluator that joins a running experiment costs its learner.

Trains the demo's ClassAct with `--launch=processes`. At a random moment an evaluator
joins (`classact evaluate`); it is stopped with SIGSTOP for a while, continued, killed,
and another one joins. For each phase: the learner's time per update (median and 95th
percentile over its lines of metrics), what of it was waiting for data, and its CPU
time per update. The evaluator computes with one thread, beside the learner, the
inference server and the replay: on a machine with two cores it takes time from them
when it evaluates, whoever had started it.

Command:
    python benchmarks/joined_evaluator.py
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import figures
import numpy as np
import psutil
import training_runs
from figures import Figure

from classact.launch.engines import resources

_WAIT_SECONDS = 300.0
_LOG_EVERY = 5


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    phase_seconds = 10.0 if options.quick else options.phase_seconds
    folder = options.workdir / "joined_evaluator"
    reference = training_runs.demo_reference(folder)
    fields = {
        "steps": 1_000_000,
        "log_every": _LOG_EVERY,
        "evaluation.every": 1_000_000,
        "reference.checkpoint": reference,
    }
    workdir = folder / "run"
    found = []
    with training_runs.Training(f"{training_runs.DEMO}:classact", workdir, fields, launch="processes"):
        lines = _Lines(workdir / "metrics" / "learner.jsonl")
        lines.wait_for_step(20 if options.quick else 200)
        learner = _learner_process(workdir)

        def phase(name: str) -> None:
            found.extend(_phase(name, phase_seconds, lines, learner))

        phase("before")
        random.seed(options.seed)
        training_runs.sleep_until(time.monotonic() + random.uniform(0.0, 10.0))
        with _evaluator(workdir, "first", options.every) as first:
            _wait_for_file(workdir / "metrics" / "evaluator-first.jsonl")
            phase("evaluator joined")
            first.send_signal(signal.SIGSTOP)
            phase("evaluator stopped")
            first.send_signal(signal.SIGCONT)
            phase("evaluator continued")
        phase("evaluator killed")
        with _evaluator(workdir, "second", options.every):
            _wait_for_file(workdir / "metrics" / "evaluator-second.jsonl")
            phase("another joined")
        phase("after")
    for name in ("first", "second"):
        text = (workdir / "metrics" / f"evaluator-{name}.jsonl").read_text()
        found.append(Figure(f"evaluations of the {name} evaluator", len(text.splitlines())))
    return found


class _Lines:
    """The learner's lines of metrics as they are written."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def since(self, wall_time: float) -> list[dict[str, Any]]:
        """The whole lines that were written after a time."""
        text = self._path.read_text() if self._path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [line for line in lines if line["time"] > wall_time]

    def wait_for_step(self, step: int) -> None:
        training_runs.wait_until(
            lambda: any(line["step"] >= step for line in self.since(0.0)),
            _WAIT_SECONDS,
            f"{self._path}: step {step}",
        )


def _phase(name: str, seconds: float, lines: _Lines, learner: psutil.Process) -> list[Figure]:
    began, cpu = time.time(), learner.cpu_times()
    training_runs.sleep_until(time.monotonic() + seconds)
    spent = learner.cpu_times()
    # The first line's interval began before the phase.
    found = lines.since(began)[1:]
    updates = _LOG_EVERY * (len(found) + 1)
    per_update = [
        (line["train/step_seconds"] + line["train/data_wait_seconds"]) / _LOG_EVERY for line in found
    ]
    waited = sum(line["train/data_wait_seconds"] for line in found)
    return [
        Figure(f"{name}: time per update, median", 1e3 * float(np.median(per_update)), "ms"),
        Figure(f"{name}:   95th percentile", 1e3 * float(np.percentile(per_update, 95)), "ms"),
        Figure(f"{name}:   waiting for data", waited / (_LOG_EVERY * sum(per_update))),
        Figure(
            f"{name}:   the learner's CPU time",
            1e3 * (spent.user + spent.system - cpu.user - cpu.system) / updates,
            "CPU-ms",
        ),
    ]


def _learner_process(workdir: pathlib.Path) -> psutil.Process:
    needle = f"--data_file={workdir / 'tasks' / 'learner.pkl'}"
    (found,) = (p for p in psutil.process_iter(["cmdline"]) if needle in (p.info["cmdline"] or []))
    return found


@contextlib.contextmanager
def _evaluator(workdir: pathlib.Path, name: str, every: int) -> Iterator[subprocess.Popen[bytes]]:
    """An evaluator that joins; killed at the end."""
    command = [
        *(sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()", "evaluate"),
        *(f"--workdir={workdir}", "--evaluator=accuracy", f"--name={name}", f"--every={every}"),
    ]
    environment = {**os.environ, **resources.thread_limits(1)}
    with (
        workdir.with_name(f"evaluator-{name}.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _wait_for_file(path: pathlib.Path) -> None:
    training_runs.wait_until(
        lambda: path.exists() and path.stat().st_size, _WAIT_SECONDS, f"{path} with something in it"
    )


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--phase-seconds", type=float, default=60.0, help="length of each phase")
    made.add_argument("--every", type=int, default=50, help="updates between two evaluations")
    made.add_argument("--seed", type=int, default=0, help="of the moment at which the first one joins")
    return made


if __name__ == "__main__":
    figures.run("joined_evaluator", parser(), measure)
