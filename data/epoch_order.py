"""In which order an epoch's examples come: a permutation that is held in memory, or computed.

A permutation in memory takes 8 bytes an example of the source while it is made: 14 GB for 1.8 billion
pairs. A computed one takes none: a Feistel network permutes the numbers of some bits, and what falls
outside of the examples goes through it again until it does not (cycle walking; Black and Rogaway, 2002).
"""

import numpy as np

from classact.data import splitmix
from classact.data.shares import Remainder

# Sources with more examples have their permutations computed: 2^24, for which one in memory takes 134 MB.
MOST_IN_MEMORY = 1 << 24
# As cursors name them; without a name it is SHUFFLED, as it was before there was another.
SHUFFLED, COMPUTED = "", "computed"
# Four make a permutation that cannot be told from a random one where the halves are large (Luby and
# Rackoff, 1988); more cost little.
_ROUNDS = 8
# An id that no example has: of the permutation itself.
_OF_ALL = np.array([2**64 - 1], np.uint64)


class ShuffledOrder:
    """A reader's share of a permutation that NumPy makes: 8 bytes an example of the share.

    While it is made, it takes 8 per example of the source, or up to 25 in an epoch that an
    earlier generation began.

    Args:
        seed: of the permutations.
        epoch: which one.
        remainder: what of it earlier generations have left.
        reader: whose share.
        num_readers: how many share it.
    """

    def __init__(self, seed: int, epoch: int, remainder: Remainder, reader: int, num_readers: int) -> None:
        permutation = np.random.default_rng([seed, epoch]).permutation(remainder.num_examples)
        self._indices = remainder.unread(permutation, epoch)[reader::num_readers].copy()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, places: slice) -> np.ndarray:
        return self._indices[places]


class ComputedOrder:
    """The same share of another permutation, of which nothing is held.

    Args:
        seed: of the permutations.
        epoch: which one.
        remainder: what of it earlier generations have left.
        reader: whose share.
        num_readers: how many share it.
    """

    def __init__(self, seed: int, epoch: int, remainder: Remainder, reader: int, num_readers: int) -> None:
        self._seed, self._epoch, self._remainder = seed, epoch, remainder
        self._share = range(reader, remainder.size(epoch), num_readers)

    def __len__(self) -> int:
        return len(self._share)

    def __getitem__(self, places: slice) -> np.ndarray:
        share = self._share[places]
        places_unread = np.arange(share.start, share.stop, share.step, dtype=np.int64)
        in_permutation = self._remainder.places(places_unread, self._epoch)
        return permuted(in_permutation, self._remainder.num_examples, self._seed, self._epoch)


def permuted(places: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """What a permutation of 0 to count − 1 has at some places: int64[N].

    Args:
        places: int64[N], each in [0, count).
        count: of what is permuted, at least 1.
        seed: of the permutations.
        epoch: which one.
    """
    keys = splitmix.outputs(splitmix.states(seed, epoch, _OF_ALL), _ROUNDS)[0]
    bits = max(2, (count - 1).bit_length())
    values = _through(places.astype(np.uint64), bits, keys)
    # At most every second one is outside, so after some rounds none is.
    while len(outside := np.flatnonzero(values >= count)):
        values[outside] = _through(values[outside], bits, keys)
    return values.astype(np.int64)


def _through(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """A Feistel network on numbers of some bits: each half in turn is changed by a hash of the other."""
    low = np.uint64(bits // 2)
    masks = np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << (bits // 2)) - 1)
    halves = [values >> low, values & masks[1]]
    for number, key in enumerate(keys):
        changed, by = number % 2, 1 - number % 2
        halves[changed] = halves[changed] ^ (splitmix.mixed(halves[by] ^ key) & masks[changed])
    return (halves[0] << low) | halves[1]
