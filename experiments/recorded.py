"""What runs record of scores and classes, beside their metrics."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from classact.data.shown import shown
from classact.experiments import curves
from classact.experiments.curves import RunError

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run has trained on of a data set, by `selected/<data set>.json`.

    Attributes:
        examples: how many, repeats counted.
        distinct: how many different ones; None if unknown.
        names: of the classes, K.
        counts: int64[K], examples of each class; by their true labels where `by_truth`.
        by_truth: whether the true labels are known, and counted.
    """

    examples: int
    distinct: Optional[int]
    names: tuple[str, ...]
    counts: np.ndarray
    by_truth: bool

    @property
    def shares(self) -> np.ndarray:
        """float64[K], which part of the examples each class was."""
        return self.counts / max(1, int(self.counts.sum()))


@dataclasses.dataclass(frozen=True)
class Measured:
    """How well a run does on each class, by `per_class/<evaluator>.json`.

    Attributes:
        step: of the newest evaluation.
        names: of the classes, K.
        examples: int64[K].
        correct: int64[K].
    """

    step: int
    names: tuple[str, ...]
    examples: np.ndarray
    correct: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """float64[K], the share of right answers; NaN for a class without examples."""
        with np.errstate(invalid="ignore"):
            found: np.ndarray = self.correct / np.where(self.examples, self.examples, np.nan)
        return found


def trained_on(run_dir: pathlib.Path) -> Optional[Trained]:
    """Reads what a run has trained on, of its first data set with labels; None if it has none.

    Raises:
        RunError: if a file is damaged; it is named.
    """
    for path in sorted((run_dir / "selected").glob("*.json")):
        record = _read(path)
        by_truth = record.get("true_labels") is not None
        counts = record.get("true_labels" if by_truth else "labels")
        if counts is None:
            continue
        found = _whole_numbers(path, "labels", counts)
        names = _names(path, record.get("classes"), len(found))
        counts = np.zeros(len(names), np.int64)
        counts[: len(found)] = found
        examples, distinct = record.get("examples"), record.get("distinct")
        if not isinstance(examples, int) or not isinstance(distinct, (int, type(None))):
            raise RunError(f"{path} is damaged: examples and distinct must be whole numbers")
        return Trained(examples, distinct, names, counts, by_truth)
    return None


def measured_classes(run_dir: pathlib.Path, evaluator: str) -> Optional[Measured]:
    """Reads how well a run does on each class; None if an evaluator left nothing of that.

    Raises:
        RunError: if the file is damaged; it is named.
    """
    path = run_dir / "per_class" / f"{evaluator}.json"
    if not path.is_file():
        return None
    record = _read(path)
    examples = _whole_numbers(path, "examples", record.get("examples"))
    correct = _whole_numbers(path, "correct", record.get("correct"))
    if examples.shape != correct.shape or not examples.any() or np.any(correct > examples):
        raise RunError(f"{path} is damaged: examples and correct do not fit each other")
    step = record.get("step")
    names = _names(path, record.get("classes"), len(examples))
    if not isinstance(step, int) or len(names) != len(examples):
        raise RunError(f"{path} is damaged: expected a step, and a name or none for each class")
    return Measured(step, names, examples, correct)


def scores(run_dir: pathlib.Path) -> np.ndarray:
    """The percentiles of the scores that a run gave, over its run loops and data sets.

    Returns:
        float64[N, 1 + len(PERCENTILES)]: the learner's step, rising, and each percentile; of
        the first data set's run loops by name. Empty if none wrote all of them.

    Raises:
        RunError: if a file is damaged; it is named.
    """
    wanted = [f"score/p{percentile:02}" for percentile in PERCENTILES]
    for paths in _run_loops(run_dir):
        lines = [
            [record["step"], *(record[name] for name in wanted)]
            for path in paths
            for record in curves.history(curves.read_metrics(path))
            if all(name in record for name in wanted)
        ]
        if lines:
            found = np.array(sorted(lines), np.float64)
            steps = np.unique(found[:, 0])
            return np.stack([found[found[:, 0] == step].mean(axis=0) for step in steps])
    return np.empty((0, 1 + len(wanted)))


def _run_loops(run_dir: pathlib.Path) -> Sequence[Sequence[pathlib.Path]]:
    """The metrics files of the run loops, by data set."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted((run_dir / "metrics").glob("run_loop-*-*.jsonl")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return list(found.values())


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise RunError(f"{path} is damaged: it holds a {type(record).__name__}, expected an object")
    return record


def _whole_numbers(path: pathlib.Path, name: str, values: Any) -> np.ndarray:
    good = isinstance(values, list) and all(isinstance(value, int) and value >= 0 for value in values)
    if not good or not values:
        raise RunError(f"{path} is damaged: {name} must be a list of whole numbers")
    return np.array(values, np.int64)


def _names(path: pathlib.Path, names: Any, number: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {label}" for label in range(number))
    if not isinstance(names, list) or len(names) < number:
        raise RunError(f"{path} is damaged: expected {number} names of classes or more")
    return tuple(shown(str(name)) for name in names)
