"""In which order the readers of shards read them, and what they have left: pure functions of numbers.

An epoch's *sequence* is all its examples: the shards in an order drawn from the seed, each from
its beginning to its end. What is unread of it is cut into as many pieces of equal length as there
are readers, one after another, so that two readers share a shard only where a piece ends.

A reader gives out its piece mixed. The example at place p of it gets the key p + W·u, where W is the
buffer and u is drawn uniformly from [0, 1) by a hash; examples leave by rising keys. So when one
leaves, all that are W places before it have left, and none that is W places behind it: read in
sequence, at most W examples are held, W/2 on average. Which ones have left after n of them follows
from n and the W places before and behind n alone, so a reader can begin anywhere.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from classact.data import splitmix
from classact.data.shares import Place

# Places of a sequence, int64[M, 2]: from and until, rising, none empty.
Ranges = np.ndarray

# Beside a seed, what tells this use of it from others.
_SHARDS, _KEYS = 0x54A2D, 0x6E5


class Epoch:
    """An epoch's sequence.

    Args:
        starts: int64[shards + 1], the index at which each shard begins, and the number of examples.
        seed: of the order of the shards.
        epoch: which one.
    """

    def __init__(self, starts: np.ndarray, seed: int, epoch: int) -> None:
        shards = np.random.default_rng([_SHARDS, seed, epoch]).permutation(len(starts) - 1)
        sizes = np.diff(starts)[shards]
        self._firsts = starts[:-1][shards]
        self._ends = np.cumsum(sizes)
        self._begins = self._ends - sizes

    def indices(self, places: np.ndarray) -> np.ndarray:
        """The indices int64[N] of the examples at places int64[N] of the sequence."""
        shard = np.searchsorted(self._ends, places, side="right")
        return self._firsts[shard] + places - self._begins[shard]

    def shard_end(self, place: int) -> int:
        """The place in the sequence behind the shard that a place is in."""
        return int(self._ends[np.searchsorted(self._ends, place, side="right")])


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """What one reader reads of an epoch.

    Attributes:
        ranges: of the sequence.
        buffer: W.
        salt: of the hash that the keys are drawn by.
    """

    ranges: Ranges
    buffer: int
    salt: int

    def __len__(self) -> int:
        return _length(self.ranges)

    def order(self, start: int, stop: int) -> np.ndarray:
        """The places in the piece, int64[N], of those that leave it as number `start` to `stop` − 1."""
        first, ranks = self._around(start, stop)
        return first + ranks[start - first : stop - first]

    def unread(self, count: int) -> tuple[np.ndarray, int]:
        """What has not left when `count` have, as (places, behind).

        Returns:
            places: int64[N], rising, those before `behind`.
            behind: from here on, none has.
        """
        first, ranks = self._around(count, count)
        return first + np.sort(ranks[count - first :]), first + len(ranks)

    def places(self, own: np.ndarray) -> np.ndarray:
        """The places in the sequence of places in the piece, int64[N]."""
        sizes = self.ranges[:, 1] - self.ranges[:, 0]
        ends = np.cumsum(sizes)
        number = np.searchsorted(ends, own, side="right")
        return self.ranges[number, 0] + own - (ends - sizes)[number]

    def next_from(self, place: int) -> int:
        """The first of its own places that is at or behind a place of the sequence; its length if none is."""
        sizes = np.clip(place - self.ranges[:, 0], 0, self.ranges[:, 1] - self.ranges[:, 0])
        return int(sizes.sum())

    def rest(self, count: int) -> Ranges:
        """What is left of it when `count` have left."""
        unread, behind = self.unread(count)
        cuts = np.stack([unread, unread + 1], axis=1)
        return select(self.ranges, _merged(np.concatenate([cuts, [[behind, len(self)]]])))

    def _around(self, start: int, stop: int) -> tuple[int, np.ndarray]:
        """(first, ranks): the places from `first` on that can leave before `stop` + W, by their keys.

        All before `first` have left by then, and of those after them none has: the r-th of
        `ranks`, counted from `first`, is the one that leaves as number `first` + r, up to `stop`.
        """
        first, last = max(0, start - self.buffer), min(len(self), stop + self.buffer)
        own = np.arange(first, last)
        keys = own + self.buffer * _uniform(self.places(own), self.salt)
        return first, np.argsort(keys, kind="stable")


@dataclasses.dataclass(frozen=True, eq=False)
class ShardRemainder:
    """What earlier sets of readers have left unread of every epoch; as `shares.Remainder`, for shards.

    It has two integers for each reader of `sets`. Those sets are kept that have read of the earliest
    unfinished epoch or a later one; nothing else is forgotten before that epoch is done.

    Attributes:
        starts: as in `Epoch`.
        buffer: W.
        seed: of order and keys.
        epoch: the earliest with an unread example.
        sets: where the readers of each set ended that still matters, the oldest first.
    """

    starts: np.ndarray
    buffer: int
    seed: int
    epoch: int = 0
    sets: tuple[tuple[Place, ...], ...] = ()
    # By epoch what was found.
    _known: dict[int, Ranges] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def num_examples(self) -> int:
        """Of the source."""
        return int(self.starts[-1])

    def size(self, epoch: int) -> int:
        """How many examples of an epoch, at least `self.epoch`, are unread."""
        return _length(self.unread(epoch))

    def share(self, reader: int, num_readers: int, epoch: int) -> int:
        """How many of these a reader reads."""
        first, last = _bounds(self.size(epoch), reader, num_readers)
        return last - first

    def unread(self, epoch: int) -> Ranges:
        """What is unread of an epoch's sequence."""
        if epoch not in self._known:
            self._known[epoch] = self._unread(epoch)
        return self._known[epoch]

    def piece(self, reader: int, num_readers: int, epoch: int) -> Piece:
        """What a reader of the next set reads of an epoch."""
        return self._cut(self.unread(epoch), epoch, reader, num_readers)

    def after(self, places: Sequence[Place]) -> "ShardRemainder":
        """What is left once the readers that shared this remainder have come to `places`."""
        ended = dataclasses.replace(self, sets=(*self.sets, tuple(places)))
        epoch = max(self.epoch, min(at for at, _ in places))
        while not ended.size(epoch):
            epoch += 1
        kept = tuple(own for own in ended.sets if any(place > (epoch, 0) for place in own))
        return dataclasses.replace(self, epoch=epoch, sets=kept)

    def as_json(self) -> dict[str, Any]:
        """The epoch and the sets, in numbers, lists and a dict."""
        return {"epoch": self.epoch, "sets": [[list(place) for place in places] for places in self.sets]}

    def from_json(self, value: Any) -> "ShardRemainder":
        """One of the same shards, as `as_json` gave it; raises a ValueError for anything else."""
        wrong = f"cursor has remainder={value}: not what a stream's cursor gives"
        try:
            epoch = value["epoch"]
            sets = tuple(tuple((at, position) for at, position in places) for places in value["sets"])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(wrong) from error
        numbers = [epoch, *itertools.chain(*itertools.chain(*sets))]
        if not all(isinstance(number, int) and number >= 0 for number in numbers) or not all(sets):
            raise ValueError(wrong)
        return dataclasses.replace(self, epoch=epoch, sets=sets)

    def _unread(self, epoch: int) -> Ranges:
        ranges = np.array([[0, self.num_examples]], np.int64)
        for places in self.sets:
            if all(place <= (epoch, 0) for place in places):
                continue
            left = [
                self._cut(ranges, epoch, reader, len(places)).rest(position) if at == epoch
                else np.empty((0, 2), np.int64) if at > epoch
                else self._cut(ranges, epoch, reader, len(places)).ranges
                for reader, (at, position) in enumerate(places)
            ]  # fmt: skip
            ranges = _merged(np.concatenate(left))
        return ranges

    def _cut(self, ranges: Ranges, epoch: int, reader: int, num_readers: int) -> Piece:
        length = _length(ranges)
        own = np.array([_bounds(length, reader, num_readers)], np.int64)
        # What is dealt again is mixed anew: else those that left late would again.
        salt = np.random.SeedSequence([_KEYS, self.seed, epoch, length])
        return Piece(select(ranges, own), self.buffer, int(salt.generate_state(1, np.uint64)[0]))


def select(ranges: Ranges, wanted: Ranges) -> Ranges:
    """The parts of ranges at wanted places, counted through all of them; those that meet are joined."""
    wanted = wanted[wanted[:, 0] < wanted[:, 1]]
    if not len(wanted):
        return wanted
    ends = np.cumsum(ranges[:, 1] - ranges[:, 0])
    points = np.unique(np.concatenate([wanted.ravel(), ends]))
    first, last = points[:-1], points[1:]
    inside = np.searchsorted(wanted[:, 0], first, side="right") - 1
    kept = (inside >= 0) & (first < wanted[inside, 1])
    first, last = first[kept], last[kept]
    number = np.searchsorted(ends, first, side="right")
    shift = ranges[number, 1] - ends[number]
    return _merged(np.stack([first + shift, last + shift], axis=1))


def _merged(ranges: Ranges) -> Ranges:
    """Joins ranges that meet."""
    if len(ranges) < 2:
        return ranges
    new = np.concatenate([[True], ranges[1:, 0] != ranges[:-1, 1]])
    return np.stack([ranges[new, 0], ranges[np.append(new[1:], True), 1]], axis=1)


def _length(ranges: Ranges) -> int:
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def _bounds(length: int, reader: int, num_readers: int) -> tuple[int, int]:
    """Where a reader's part of so many begins and ends."""
    return reader * length // num_readers, (reader + 1) * length // num_readers


def _uniform(numbers: np.ndarray, salt: int) -> np.ndarray:
    """float64[N] in [0, 1): hashes of whole numbers and a salt."""
    mixed = splitmix.mixed(numbers.astype(np.uint64) * splitmix.GOLDEN + np.uint64(salt))
    return (mixed >> np.uint64(11)) * 2.0**-53
