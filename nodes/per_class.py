"""How well a model does on each class: for a line of metrics, and as a file."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from classact.nodes import metrics as metrics_lib

FOLDER = "per_class"


class PerClass(NamedTuple):
    """What an evaluator has found of each class.

    Attributes:
        examples: int64[K], how many there were of each.
        correct: int64[K], of how many the model was right.
        names: of the classes; None if unknown.
    """

    examples: np.ndarray
    correct: np.ndarray
    names: tuple[str, ...] | None


class Measured(dict[str, float]):
    """What an evaluator has measured: numbers by name, and beside them what it has found of each class."""

    def __init__(self, values: Mapping[str, float], classes: PerClass | None = None) -> None:
        super().__init__(values)
        self.classes = classes

    def adding(self, values: Mapping[str, float]) -> "Measured":
        """The same with more numbers."""
        return Measured({**self, **values}, self.classes)


def measured(
    values: Mapping[str, float],
    examples: np.ndarray,
    correct: np.ndarray,
    names: Sequence[str] | None,
    prefix: str = "",
) -> Measured:
    """Adds to an evaluator's numbers what counts by class say.

    Args:
        values: by name.
        examples: whole numbers [K], at least one not 0.
        correct: whole numbers [K].
        names: by label; None if unknown.
        prefix: of the name of the accuracy.

    Returns:
        `values`, and `<prefix>worst_class_top1`: the lowest share of right answers of a class
        that has examples; with the counts as `classes`.
    """
    there = examples > 0
    worst = float(np.min(correct[there] / examples[there]))
    counts = PerClass(
        np.asarray(examples, np.int64), np.asarray(correct, np.int64), tuple(names) if names else None
    )
    return Measured({**values, f"{prefix}worst_class_top1": worst}, counts)


def write_measured(
    metrics: metrics_lib.MetricsWriter, evaluator: str, step: int, values: Mapping[str, float]
) -> None:
    """Writes what an evaluator has measured: a line of metrics, and `per_class/<evaluator>.json`.

    The file, if the values are `Measured` with classes, has `step`, `classes` (their names, or
    null), `examples` and `correct` by class, of the newest evaluation; it is replaced whole.

    Args:
        metrics: of the evaluator.
        evaluator: its name.
        step: of the variables.
        values: by name, without the evaluator's prefix.

    Raises:
        OSError: if the disk refuses one of them.
    """
    found = values.classes if isinstance(values, Measured) else None
    if found is not None:
        folder = metrics.path.parent.parent / FOLDER
        folder.mkdir(exist_ok=True)
        record = {
            "step": step,
            "classes": None if found.names is None else list(found.names),
            "examples": found.examples.tolist(),
            "correct": found.correct.tolist(),
        }
        unfinished = folder / f"{evaluator}.tmp"
        unfinished.write_text(json.dumps(record) + "\n")
        os.replace(unfinished, folder / f"{evaluator}.json")
    # Last: who reads the line will find the file.
    metrics.write(step, {f"eval/{evaluator}/{name}": value for name, value in values.items()})
