"""Random numbers that follow from a seed, an epoch and an example alone, for whole batches at once.

So an example is cropped alike by whoever reads it, in whatever batch, and when a run is resumed.
"""

import numpy as np

from classact.data import splitmix


def uniform(seed: int, epoch: int, ids: np.ndarray, count: int) -> np.ndarray:
    """Numbers from 0 to below 1.

    Args:
        seed: 0 to below 2^64.
        epoch: the same.
        ids: int64[N].
        count: K, of numbers for each example; the first ones do not depend on it.

    Returns:
        float64[N, K], multiples of 2^-53.
    """
    return (splitmix.outputs(splitmix.states(seed, epoch, ids), count) >> np.uint64(11)) * 2.0**-53
