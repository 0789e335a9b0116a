"""Measures the parts of a run on this machine, each alone in a process of its own.

    python -m classact.launch.commands.measuring PART SECONDS < config.json

prints one number. A process of its own has the compute threads that the node would have, and
is killed if it takes too long.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from classact import user_code
from classact.launch.engines import resources

if TYPE_CHECKING:
    from classact.experiments.config import ExperimentConfig

# What is measured, and the kind of node whose threads it has.
_PARTS = {"step_seconds": "learner", "scorings": "inference", "reads": "run_loop", "inserts": "replay"}
# To open data and to compile.
_START_SECONDS = 540.0
_MARK = "measured "


class MeasureError(RuntimeError):
    """A part could not be measured."""


def measure(config: "ExperimentConfig", seconds: float) -> dict[str, float]:
    """Measures all parts, one after another, and says on the terminal which one it is at.

    Blocks for about four times `seconds` and what it takes to begin; at most ten minutes a part.

    Args:
        config: the resolved configuration.
        seconds: how long to measure each part.

    Returns:
        `step_seconds` of the learner, and `scorings`, `reads` and `inserts` per second.

    Raises:
        MeasureError: naming the part, with the last line of what it said.
    """
    found = {}
    for part, kind in _PARTS.items():
        print(f"classact: measuring {part.replace('_', ' ')} …", file=sys.stderr, flush=True)
        found[part] = _measured(config, part, kind, seconds)
    return found


def _measured(config: "ExperimentConfig", part: str, kind: str, seconds: float) -> float:
    threads = getattr(config.threads, kind) or None
    limits = resources.thread_limits(threads) if threads is not None else {}
    command = [sys.executable, "-m", "classact.launch.commands.measuring", part, str(seconds)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(dataclasses.asdict(config)),
            env={**os.environ, **limits},
            capture_output=True,
            text=True,
            timeout=_START_SECONDS + seconds,
        )
    except subprocess.TimeoutExpired:
        raise MeasureError(f"--measure: {part} took longer than {_START_SECONDS + seconds:g} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit status {done.returncode}")
        raise MeasureError(f"--measure: {part} cannot be measured: {last}")
    return float(lines[-1].removeprefix(_MARK))


def main(argv: Sequence[str]) -> None:
    """Measures one part, whose configuration is on standard input."""
    from classact.experiments import resolution
    from classact.launch.assembly import measured
    from classact.launch.assembly.parts import planned
    from classact.launch.assembly.parts.first_lines import FirstLines

    part, seconds = argv[0], float(argv[1])
    config = resolution.resolve(json.load(sys.stdin))
    data = planned.opened_shapes(config, FirstLines())
    measures = {
        "step_seconds": measured.learner,
        "scorings": measured.scorings,
        "reads": measured.reads,
        "inserts": measured.inserts,
    }
    rate = measures[part](config, data, seconds)
    print(f"{_MARK}{rate!r}", flush=True)


if __name__ == "__main__":
    user_code.use_working_directory()
    main(sys.argv[1:])
    # A thread of gRPC or XLA must not hold it up.
    os._exit(0)
