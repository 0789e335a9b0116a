"""What may be a seed: a word of 32 bits.

JAX keeps no more of one: `jax.random.key(0)` is the key of 2^32 as well. NumPy takes a larger
seed as several words, which meet what is counted beside the seed: `default_rng([2**32 + 5, 0])`
is `default_rng([5, 1])`, so epoch 0 of one stream would be epoch 1 of another.
"""

LIMIT = 2**32
ACCEPTED = "at least 0 and below 2^32"


def checked(seed: int) -> int:
    """Returns a seed that differs from all others.

    Raises:
        ValueError: for one that does not.
    """
    if not 0 <= seed < LIMIT:
        raise ValueError(f"seed={seed}: must be {ACCEPTED}")
    return seed
