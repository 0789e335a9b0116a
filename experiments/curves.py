"""Reads run directories, and what their learning curves say.

One rule holds for every curve, so that none is helped by a lucky peak: an
accuracy is the mean of the last three evaluations up to that step, a run's
final accuracy is that mean at its end, and a run reaches a target where the
line through those means first crosses it.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np

Curve = Sequence[tuple[float, float]]
"""(learner step or another cost, value) by rising first element."""

SMOOTHED_EVALUATIONS = 3
DEFAULT_METRIC = "eval/test/top1"
# Shares, of which more is better: accuracies and recalls.
_SHARE = re.compile(r"eval/[^/]+/([^/]+_)?(top|r)[0-9]+")

# A run with a result says how it ended; these say what can be known without.
UNFINISHED = "unfinished"
COMPLETED = "completed"
# A run whose numbers became NaN or infinite, whatever its result says.
DIVERGED = "diverged"
# What `nodes.metrics` writes in place of such a number, where it shows that.
_NONFINITE = "/nonfinite"
_SHOWS_DIVERGENCE = re.compile(rf"(eval/.+|train/(.+/)?\w*loss){_NONFINITE}")


class RunError(ValueError):
    """A directory that is no run, or a file of a run that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has left behind so far.

    Attributes:
        path: the run directory.
        config: the resolved configuration, from `config.json`.
        result: `result.json`, or empty if the run has none: it still runs, or
            was killed.
        curve: (step, value) of the evaluations, as measured; before a divergence.
        learner: the learner's records, by step.
        metric: the name of the values in `curve`.
        on_training_data: whether they were measured on data that the run trains on.
        diverged_at: the step at which the run is known to have diverged; None if it is not.
    """

    path: pathlib.Path
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    curve: tuple[tuple[float, float], ...]
    learner: tuple[Mapping[str, Any], ...]
    metric: str = DEFAULT_METRIC
    on_training_data: bool = False
    diverged_at: Optional[int] = None

    def field(self, name: str, default: Any = None) -> Any:
        """A configuration field by its dotted name, for instance `learner.model`."""
        value: Any = self.config
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    @property
    def policy(self) -> str:
        """The name of the run's selection policy."""
        return str(self.field("policy"))

    @property
    def status(self) -> str:
        """`completed`, `failed`, `interrupted`, `diverged`, or `unfinished` without a result."""
        if self.diverged_at is not None:
            return DIVERGED
        return str(self.result.get("status", UNFINISHED))

    @property
    def steps(self) -> int:
        """Learner updates known to be done."""
        logged = int(self.learner[-1]["step"]) if self.learner else 0
        return max(int(self.result.get("steps") or 0), logged)

    @property
    def ledger(self) -> Mapping[str, float]:
        """MACs by what they were spent on (`ledger.run_ledger`); empty without a result."""
        return self.result.get("ledger") or {}

    def learner_mean(self, name: str) -> Optional[float]:
        """Mean of a learner metric over the run, by the examples of each record.

        Returns:
            The mean, or None if no record has the metric.
        """
        values, weights = [], []
        for record in self.learner:
            if name in record:
                values.append(float(record[name]))
                weights.append(float(record.get("train/examples", 1.0)))
        if not sum(weights):
            return None
        return float(np.average(values, weights=weights))

    def learner_curve(self, name: str) -> Curve:
        """(step, value) of one of the learner's metrics."""
        return tuple(
            (float(record["step"]), float(record[name])) for record in self.learner if name in record
        )


def load_run(run_dir: Union[str, "os.PathLike[str]"], metric: str = DEFAULT_METRIC) -> Run:
    """Reads a run directory; the run may be going on.

    Args:
        run_dir: the directory.
        metric: the evaluator's metric to take as the learning curve,
            `eval/<evaluator>/<name>`: a share from 0 to 1, more is better.

    Raises:
        RunError: if the directory is missing or is no run's, or one of its
            files is damaged; the message names the file.
        ValueError: if `metric` is not of that form.
    """
    parts = metric.split("/")
    if len(parts) != 3 or parts[0] != "eval":
        raise ValueError(
            f"metric={metric!r}, expected eval/<evaluator>/<name>, for instance {DEFAULT_METRIC}"
        )
    path = pathlib.Path(run_dir)
    if not path.is_dir():
        reason = "it is a file" if path.exists() else "there is no such directory"
        raise RunError(f"{path} is no run directory: {reason}")
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is no run directory: it has no config.json, which `classact train` writes")
    config = _read_object(path / "config.json")
    if not isinstance(config.get("policy"), str):
        raise RunError(f"{path / 'config.json'} is no run's configuration: it names no policy")
    result = _read_result(path / "result.json") if (path / "result.json").exists() else {}
    evaluations = history(read_metrics(path / "metrics" / f"evaluator-{parts[1]}.jsonl"))
    learner = history(read_metrics(path / "metrics" / "learner.jsonl"))
    diverged_at = _diverged_at(result, [*evaluations, *learner])
    return Run(
        path=path,
        config=config,
        result=result,
        curve=tuple(
            (float(record["step"]), float(record[metric]))
            for record in evaluations
            if metric in record and (diverged_at is None or record["step"] < diverged_at)
        ),
        learner=tuple(learner),
        metric=metric,
        on_training_data=any(record.get(f"eval/{parts[1]}/on_training_data") for record in evaluations),
        diverged_at=diverged_at,
    )


def _diverged_at(result: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Optional[int]:
    """The step at which a run diverged, by its result or its records; None if it did not."""
    steps = [int(record["step"]) for record in records if any(map(_SHOWS_DIVERGENCE.fullmatch, record))]
    told = result.get("diverged")
    if isinstance(told, int) and not isinstance(told, bool):
        steps.append(told)
    if not steps and (told or any(map(_SHOWS_DIVERGENCE.fullmatch, result.get("final") or {}))):
        steps.append(int(result.get("steps") or 0))
    return min(steps, default=None)


def measured(run_dir: Union[str, "os.PathLike[str]"]) -> list[str]:
    """The metrics of a run that `load_run` can take as a learning curve: accuracies and recalls.

    Raises:
        RunError: if an evaluator's file is damaged.
    """
    names: dict[str, None] = {}
    for path in sorted((pathlib.Path(run_dir) / "metrics").glob("evaluator-*.jsonl")):
        for record in read_metrics(path):
            names |= dict.fromkeys(name for name in record if _SHARE.fullmatch(name))
    return list(names)


def read_metrics(path: Union[str, "os.PathLike[str]"]) -> list[dict[str, Any]]:
    """Reads a node's metrics file, which may be growing.

    A line that was cut short is left out: the last one while it is written, an
    earlier one where the node was killed and started again.

    Args:
        path: the file; a missing one holds no records.

    Returns:
        The records in the order of the file; every field is a finite number, and `step`
        is there. NaN and infinity, which JSON does not have but Python writes, become what
        `nodes.metrics` writes for them, `"<name>/nonfinite": 1`. See `history` for what a
        restarted run makes of the records.

    Raises:
        RunError: if a line is no metrics record; the message names file and line.
    """
    try:
        lines = pathlib.Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        record = _parse_record(line, f"{path}, line {number}")
        if record is not None:
            records.append(record)
    return records


def history(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records that count, one for each step, by rising step.

    A step below the one before it means that the run went back to a checkpoint:
    the records above that step were undone, and are left out. Records of the
    same step are one, in which the newer value of a metric wins.
    """
    kept: list[dict[str, Any]] = []
    for record in records:
        while kept and kept[-1]["step"] > record["step"]:
            kept.pop()
        if kept and kept[-1]["step"] == record["step"]:
            kept[-1].update(record)
        else:
            kept.append(dict(record))
    return kept


def _parse_record(line: bytes, where: str) -> Optional[dict[str, Any]]:
    """Returns a line's record, or None for an empty line and one that was cut short."""
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    # The latter for brackets within brackets within brackets.
    except (ValueError, RecursionError) as error:
        if line.startswith(b"{") and not line.rstrip().endswith(b"}"):
            return None
        raise RunError(f"{where} is no JSON: {line[:60]!r}") from error
    numbers = isinstance(record, dict) and all(isinstance(value, (int, float)) for value in record.values())
    if not numbers or not math.isfinite(record.get("step", math.nan)):
        raise RunError(f"{where} is no metrics record, expected numbers by name and a step: {line[:60]!r}")
    return _marked(record)


def _marked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces numbers that are not finite by their markers."""
    bad = {name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)}
    return {name + _NONFINITE if name in bad else name: 1 if name in bad else record[name] for name in record}


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object."""
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it holds a {type(value).__name__}, expected an object")
    return value


def _read_result(path: pathlib.Path) -> dict[str, Any]:
    """Reads how a run ended; what is missing, or is no finite number, is not known."""
    result = _marked(_read_object(path))
    kinds: dict[str, tuple[Any, str]] = {
        "status": (str, "a word"),
        "steps": ((int, float), "a number"),
        "ledger": (dict, "an object"),
        "final": (dict, "an object"),
        "diverged": (int, "a step"),
    }
    for name, (kind, expected) in kinds.items():
        if result.get(name) is not None and not isinstance(result[name], kind):
            raise RunError(f"{path} is damaged: {name} is {result[name]!r}, expected {expected}")
    return result | {name: _marked(result[name]) for name in ("final", "ledger") if result.get(name)}


def smooth(curve: Curve) -> list[tuple[float, float]]:
    """Replaces each value by the mean of the last three up to it (of fewer at the start)."""
    values = [value for _, value in curve]
    return [
        (step, float(np.mean(values[max(0, i + 1 - SMOOTHED_EVALUATIONS) : i + 1])))
        for i, (step, _) in enumerate(curve)
    ]


def final(curve: Curve) -> Optional[float]:
    """The mean of the last three evaluations; None if there is none."""
    return smooth(curve)[-1][1] if curve else None


def updates_to_reach(curve: Curve, target: float) -> Optional[float]:
    """Where the smoothed curve first reaches a value, linearly interpolated.

    Args:
        curve: the evaluations as measured.
        target: the value to reach.

    Returns:
        Updates (or the unit of the curve's first elements), or None if the
        curve never gets there.
    """
    points = smooth(curve)
    for i, (step, value) in enumerate(points):
        if value >= target:
            if i == 0:
                return step
            before, low = points[i - 1]
            return before + (step - before) * (target - low) / (value - low)
    return None
