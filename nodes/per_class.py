"""How well a model does on each class: for a line of metrics, and as a file."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


def metrics(
    examples: np.ndarray, correct: np.ndarray, names: Sequence[str] | None, prefix: str = ""
) -> dict[str, float | PerClass]:
    """Makes metrics of counts by class.

    Args:
        examples: whole numbers [K], at least one not 0.
        correct: whole numbers [K].
        names: by label; None if unknown.
        prefix: of the name of the accuracy.

    Returns:
        `<prefix>worst_class_top1`: the lowest share of right answers of a class that has examples;
        `per_class`: the counts.
    """
    there = examples > 0
    counts = PerClass(
        np.asarray(examples, np.int64), np.asarray(correct, np.int64), tuple(names) if names else None
    )
    return {f"{prefix}worst_class_top1": float(np.min(correct[there] / examples[there])), "per_class": counts}


def write_measured(
    metrics: metrics_lib.MetricsWriter, evaluator: str, step: int, values: Mapping[str, Any]
) -> None:
    """Writes what an evaluator has measured: a line of metrics, and `per_class/<evaluator>.json`.

    The file has `step`, `classes` (their names, or null), `examples` and `correct` by class, of
    the newest evaluation; it is replaced whole.

    Args:
        metrics: of the evaluator.
        evaluator: its name.
        step: of the variables.
        values: by name, without the evaluator's prefix.

    Raises:
        OSError: if the disk refuses one of them.
    """
    numbers = {name: value for name, value in values.items() if not isinstance(value, PerClass)}
    for value in values.values():
        if isinstance(value, PerClass):
            folder = metrics.path.parent.parent / FOLDER
            folder.mkdir(exist_ok=True)
            record = {
                "step": step,
                "classes": None if value.names is None else list(value.names),
                "examples": value.examples.tolist(),
                "correct": value.correct.tolist(),
            }
            unfinished = folder / f"{evaluator}.tmp"
            unfinished.write_text(json.dumps(record) + "\n")
            os.replace(unfinished, folder / f"{evaluator}.json")
    # Last: who reads the line will find the file.
    metrics.write(step, {f"eval/{evaluator}/{name}": value for name, value in numbers.items()})
