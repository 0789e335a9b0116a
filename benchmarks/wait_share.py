"""How long a run's learner waits for data, and how old the data's scores are.

Command:
    python benchmarks/wait_share.py runs/demo/classact
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from figures import Figure, format_table


def figures_of(workdir: pathlib.Path, skip_share: float = 0.25) -> list[Figure]:
    """Reads a run's learner metrics.

    Args:
        workdir: the run directory.
        skip_share: share of the run at its beginning that is left out: there
            the replay fills and functions compile.

    Raises:
        ValueError: if no line of metrics is left.
    """
    lines = _learner_lines(workdir)
    lines = [line for line in lines if line["step"] > skip_share * lines[-1]["step"]]
    waited = _total(lines, "train/data_wait_seconds")
    stepped = _total(lines, "train/step_seconds")
    found = [Figure("learner's wait share", waited / (waited + stepped))]
    staleness = [line["selection/staleness_steps"] for line in lines if "selection/staleness_steps" in line]
    if staleness:
        largest = max(line["selection/staleness_max_steps"] for line in lines)
        found += [
            Figure("staleness, mean", sum(staleness) / len(staleness), "updates"),
            Figure("staleness, largest", largest, "updates"),
        ]
    return found


def read_metric(workdir: pathlib.Path, name: str) -> dict[int, float]:
    """One metric of a run's learner by step; steps without it are left out."""
    return {line["step"]: line[name] for line in _learner_lines(workdir) if name in line}


def _learner_lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    path = workdir / "metrics" / "learner.jsonl"
    # A run in progress may have written half a line.
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    if not lines:
        raise ValueError(f"{path}: no line of metrics")
    return lines


def _total(lines: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(line[name] for line in lines))


def main() -> None:
    """Prints the table of one run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=pathlib.Path, help="run directory")
    print(format_table(figures_of(parser.parse_args().run)))


if __name__ == "__main__":
    main()
