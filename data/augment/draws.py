"""Random numbers that follow from a seed, an epoch and an example alone, for whole batches at once.

So an example is cropped alike by whoever reads it, in whatever batch, and when a run is resumed.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, epoch: int, ids: np.ndarray, count: int) -> np.ndarray:
    """Numbers from 0 to below 1.

    They are outputs of SplitMix64 (Steele, Lea and Flood, 2014), whose state is a hash, by
    its own finaliser, of seed, epoch and id.

    Args:
        seed: 0 to below 2^64.
        epoch: the same.
        ids: int64[N].
        count: K, of numbers for each example; the first ones do not depend on it.

    Returns:
        float64[N, K], multiples of 2^-53.
    """
    # Arrays of whole numbers wrap around; of a single one NumPy would warn.
    states = np.array([seed], np.uint64)
    for more in (np.array([epoch], np.uint64), np.asarray(ids).astype(np.uint64)):
        states = _mixed(states + _GOLDEN) ^ more
    states = _mixed(states + _GOLDEN)
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return (_mixed(states[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def _mixed(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
