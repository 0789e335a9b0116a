"""SplitMix64 (Steele, Lea and Flood, 2014): numbers that look random and follow from what they are of.

For whole arrays at once, and with no state but what goes in: whoever computes them finds the same.
"""

import numpy as np

# What is added from one number of a generator to the next.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def states(seed: int, epoch: int, ids: np.ndarray) -> np.ndarray:
    """Where the generators of examples begin: hashes, by its finaliser, of seed, epoch and id.

    Args:
        seed: 0 to below 2^64.
        epoch: the same.
        ids: integers[N].

    Returns:
        uint64[N].
    """
    # Arrays of whole numbers wrap around; of a single one NumPy would warn.
    found = np.array([seed], np.uint64)
    for more in (np.array([epoch], np.uint64), np.asarray(ids).astype(np.uint64)):
        found = mixed(found + GOLDEN) ^ more
    return mixed(found + GOLDEN)


def outputs(state: np.ndarray, count: int) -> np.ndarray:
    """The first outputs uint64[N, count] of generators whose states are uint64[N]."""
    return mixed(state[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)


def mixed(value: np.ndarray) -> np.ndarray:
    """Its finaliser, on uint64[...]: no two values become one, and each bit depends on all."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
