"""Curves of several seeds as one."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from classact.experiments.curves import Curve


@dataclasses.dataclass(frozen=True)
class Band:
    """Curves of several seeds as one: arrays float64[N], the extremes over the seeds."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def aggregate(curves: Sequence[Curve]) -> Band:
    """The mean and the extremes of several curves, as given (smooth them first).

    Curves are evaluated at different steps in an asynchronous system, so each
    is interpolated linearly to all steps at which one of them was, within the
    range that all of them cover: no mean of fewer curves at an end.

    Raises:
        ValueError: if there is no curve, or an empty one.
    """
    if not curves or not all(curves):
        raise ValueError("expected one or more curves with one or more points each")
    arrays = [np.asarray(curve, dtype=np.float64) for curve in curves]
    first = max(array[0, 0] for array in arrays)
    last = min(array[-1, 0] for array in arrays)
    steps = np.unique(np.concatenate([array[:, 0] for array in arrays]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = np.stack([np.interp(steps, array[:, 0], array[:, 1]) for array in arrays])
    return Band(steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0))
