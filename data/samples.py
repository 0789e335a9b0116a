"""Samples of what there is too much of to look at all."""

import numpy as np


def evenly(count: int, most: int) -> np.ndarray:
    """int64[M] in rising order: at most so many of the numbers below `count`, evenly over all."""
    return np.unique(np.linspace(0, count - 1, max(0, most if count else 0)).astype(np.int64))
