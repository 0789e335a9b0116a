"""What is kept of a run when its directory is gone: one JSON line, from which tables and figures are made.

A record has the whole configuration of its run and of its references, as changes from what
`experiments/base.py` was then. So a record of a configuration that has been edited since, be it the
run's, a reference's or a default, is not taken for the run that it would be now; a field that is new
since, and at its default, makes no difference.
"""

import dataclasses
import hashlib
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
        changes: the fields in which its configuration differs from `defaults`, by dotted names;
            a reference by its name in the sweep.
        references: changes of these by name, and of their references.
        defaults: all fields of `experiments/base.py` when it was made, by dotted names.
        launch: the engine that ran it.
        git_commit: of the code that ran it.
        result: of `result.json`: how it ended, its steps, its ledger, its seconds.
        curves: by metric (step, value) of the evaluations.
        selection: by `selection/<name>` (step, mean since the evaluation before).
    """

    name: str
    changes: Mapping[str, Any]
    references: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, Any]
    launch: str
    git_commit: str
    result: Mapping[str, Any]
    curves: Mapping[str, list[list[float]]]
    selection: Mapping[str, list[list[float]]] = dataclasses.field(default_factory=dict)

    def is_of(self, changes: Mapping[str, Any], references: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether it is of a run that has these changes from the present defaults, and such references."""
        now = defaults()

        def same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
            theirs, ours = {**now, **self.defaults, **before}, {**now, **after}
            return theirs == ours

        return (
            same(self.changes, changes)
            and set(self.references) == set(references)
            and all(same(self.references[name], references[name]) for name in references)
        )

    def run(self, metric: str) -> curves_lib.Run:
        """The run as `comparison` takes it, with one of its metrics as the learning curve.

        Raises:
            RecordError: if it has not that metric.
        """
        if metric not in self.curves:
            known = ", ".join(self.curves)
            raise RecordError(f"METRIC={metric!r}: {self.name} was not measured by it, but by {known}")
        learner = [
            {"step": step, name: value} for name, points in self.selection.items() for step, value in points
        ]
        config = _nested({**self.defaults, **self.changes})
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


def defaults() -> dict[str, Any]:
    """The fields of `experiments/base.py` by dotted names, as JSON has them."""
    return _as_json(flatten(base.get_config().to_dict()))


def changes_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that differ from those of `experiments/base.py`, by dotted names, as JSON has them."""
    before = defaults()
    after = _as_json(flatten(fields))
    return {name: value for name, value in after.items() if before.get(name, ...) != value}


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(value))
    return found


def of_run(
    name: str,
    changes: Mapping[str, Any],
    references: Mapping[str, Mapping[str, Any]],
    run_dir: pathlib.Path,
) -> Record:
    """Makes the record of a run that has ended, with the present defaults.

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
        {key: dict(value) for key, value in references.items()},
        defaults(),
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
    found: dict[str, Record] = {}
    known: dict[str, Mapping[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            if "fields" in fields:
                known[fields["defaults"]] = fields["fields"]
                continue
            record = Record(**{**fields, "defaults": known[fields["defaults"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(f"{path}, line {number} is no record of a run: {error!r}") from error
        found[record.name] = record
    return found


def write(path: pathlib.Path, found: Iterable[Record]) -> None:
    """Writes records, by name, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    lines: list[str] = []
    written: set[str] = set()
    for record in sorted(found, key=lambda item: item.name):
        # Those of all runs of a time are the same: they are there once.
        text = json.dumps(record.defaults, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        if key not in written:
            lines.append(json.dumps({"defaults": key, "fields": record.defaults}))
            written.add(key)
        lines.append(json.dumps({**dataclasses.asdict(record), "defaults": key}))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines))
    os.replace(temporary, path)
