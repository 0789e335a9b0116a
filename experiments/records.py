"""What is kept of a run when its directory is gone: one JSON line, from which tables and figures are made.

A record names its run by the changes from `experiments/base.py`, so that a record of a
configuration that has been edited since is not taken for the run that it would be now.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from classact.experiments import base
from classact.experiments import curves as curves_lib
from classact.experiments.compare import comparison
from classact.experiments.compare.groups import flatten

# Of the learner's metrics these are kept, as means between evaluations.
_KEPT = ("selection/",)
_DIGITS = 5
# Of `result.json`.
_RESULT = ("status", "steps", "ledger", "wall_seconds", "cpu_seconds", "diverged")


class RecordError(ValueError):
    """A file of records that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A run that has ended.

    Attributes:
        name: of the run in its sweep.
        changes: the fields in which its configuration differs from `experiments/base.py`, by
            dotted names; a reference by its name in the sweep.
        launch: the engine that ran it.
        git_commit: of the code that ran it.
        result: of `result.json`: how it ended, its steps, its ledger, its seconds.
        curves: by metric (step, value) of the evaluations.
        selection: by `selection/<name>` (step, mean since the evaluation before).
    """

    name: str
    changes: Mapping[str, Any]
    launch: str
    git_commit: str
    result: Mapping[str, Any]
    curves: Mapping[str, list[list[float]]]
    selection: Mapping[str, list[list[float]]] = dataclasses.field(default_factory=dict)

    def run(self, metric: str) -> curves_lib.Run:
        """The run as `comparison` takes it, with one of its metrics as the learning curve.

        Raises:
            KeyError: if it has not that metric.
        """
        learner = [
            {"step": step, name: value} for name, points in self.selection.items() for step, value in points
        ]
        config = _nested({**flatten(base.get_config().to_dict()), **self.changes})
        diverged = self.result.get("diverged")
        return curves_lib.Run(
            pathlib.Path(self.name),
            config,
            self.result,
            tuple((step, value) for step, value in self.curves[metric]),
            tuple(sorted(learner, key=lambda record: record["step"])),
            metric,
            diverged_at=None if diverged is None else int(diverged),
        )


def changes_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that differ from those of `experiments/base.py`, by dotted names, as JSON has them."""
    before = flatten(base.get_config().to_dict())
    changed = {name: value for name, value in flatten(fields).items() if before.get(name, ...) != value}
    found: dict[str, Any] = json.loads(json.dumps(changed))
    return found


def of_run(name: str, changes: Mapping[str, Any], run_dir: pathlib.Path) -> Record:
    """Makes the record of a run that has ended.

    Raises:
        RunError: if the directory holds none, or a file of it is damaged.
    """
    found = curves_lib.load_run(run_dir)
    metrics = comparison.main_metrics(found)
    runs = {metric: curves_lib.load_run(run_dir, metric) for metric in metrics}
    steps = sorted({step for run in runs.values() for step, _ in run.curve})
    names = dict.fromkeys(key for line in found.learner for key in line if key.startswith(_KEPT))
    result = {key: found.result[key] for key in _RESULT if found.result.get(key) is not None}
    if found.diverged_at is not None:
        result["diverged"] = found.diverged_at
    return Record(
        name,
        dict(changes),
        str(found.field("launch", "")),
        str(found.field("git_commit", "")),
        result,
        {metric: [[step, _rounded(value)] for step, value in run.curve] for metric, run in runs.items()},
        {key: _binned(found.learner_curve(key), steps) for key in names},
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _binned(curve: curves_lib.Curve, steps: list[float]) -> list[list[float]]:
    """Means of a curve's values between evaluations."""
    binned, since = [], 0.0
    for step in steps:
        values = [value for at, value in curve if since < at <= step]
        if values:
            binned.append([step, _rounded(float(np.mean(values)))])
        since = step
    return binned


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return nested


def read(path: pathlib.Path) -> dict[str, Record]:
    """Reads a file of records, by name; a missing file holds none.

    Raises:
        RecordError: if a line is no record; the message names file and line.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise RecordError(f"{path}, line {number} is no record of a run: {error}") from error
        found[record.name] = record
    return found


def write(path: pathlib.Path, found: Iterable[Record]) -> None:
    """Writes records, by name, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    lines = [json.dumps(dataclasses.asdict(record)) for record in sorted(found, key=lambda item: item.name)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines))
    os.replace(temporary, path)
