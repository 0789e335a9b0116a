"""How the readers of a stream share its epochs, also after their number has changed.

Within an epoch, the examples that nobody has read, in the order of the epoch's
permutation, are dealt out like cards: reader r of R takes every R-th of them, from
the r-th on. Readers that begin together are a set. When a run goes on with another
number of readers, a new set begins, and what the earlier sets left of each epoch is
dealt out anew. A set's shares of an epoch are disjoint and together all that was
left of it, so every example of an epoch is read by one reader of one set.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np

# Where a reader is: (epoch, position). It has read its shares of all earlier epochs, and
# the first `position` examples of its share of this one.
Place = tuple[int, int]


class Unread(Protocol):
    """What earlier sets of readers have left: `Remainder`, or `shard_order.ShardRemainder`."""

    @property
    def epoch(self) -> int:
        """The earliest with an unread example."""

    def share(self, reader: int, num_readers: int, epoch: int) -> int:
        """How many examples of an epoch a reader of the next set reads."""

    def after(self, places: Sequence[Place]) -> Self:
        """What is left once the readers that shared it have come to `places`."""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON has it."""


class Share(Protocol):
    """What a reader reads of an epoch, in order: an array, or something that finds parts of it."""

    def __len__(self) -> int:
        """How many examples."""

    def __getitem__(self, part: slice, /) -> np.ndarray:
        """The indices of some that follow each other, int64[N]."""


@dataclasses.dataclass(frozen=True)
class Remainder:
    """What earlier sets of readers have left unread, of every epoch; nothing is read at first.

    Its length is two integers for each reader of `sets`, whatever the number of examples.
    Readers leave holes: unread examples before the furthest one that was read. A change
    of numbers forgets the sets that have read nothing since the earliest unfinished epoch
    began, and all earlier ones once every reader of the last set has read past their
    holes, provided that they haven't begun a later epoch. So there is more than one set
    only if numbers change again before that, and at most those since the earliest
    unfinished epoch began.

    Attributes:
        num_examples: of the source.
        epoch: the earliest with an unread example.
        start: how many examples at this epoch's beginning have been read, whoever read them.
        sets: where the readers of each set ended that still matters, the oldest first.
    """

    num_examples: int
    epoch: int = 0
    start: int = 0
    sets: tuple[tuple[Place, ...], ...] = ()

    def size(self, epoch: int) -> int:
        """How many examples of an epoch, at least `self.epoch`, are unread."""
        tail, holes = self._tail(epoch)
        return self.num_examples - tail + holes

    def share(self, reader: int, num_readers: int, epoch: int) -> int:
        """How many of these a reader of the next set reads."""
        return len(range(reader, self.size(epoch), num_readers))

    def unread(self, permutation: np.ndarray, epoch: int) -> np.ndarray:
        """Leaves out of an epoch's permutation, int64[num_examples], what has been read.

        Needs up to 17 bytes per example besides the permutation; may return a view of it.
        """
        order = permutation[self._first(epoch) :]
        for places in self.sets:
            reads = _reads(places, epoch, len(order))
            if not any(reads):
                continue
            kept = np.ones(len(order), bool)
            for reader, read in enumerate(reads):
                kept[reader : reader + read * len(reads) : len(reads)] = False
            order = order[kept]
        return order

    def places(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        """Where in an epoch's permutation unread examples are.

        Args:
            positions: int64[N] among the unread ones, each in [0, `size(epoch)`).
            epoch: at least `self.epoch`.

        Returns:
            int64[N]; what `unread(arange(num_examples))` has at the positions, without an array
            of that length.
        """
        first = self._first(epoch)
        # What each set found unread: of its positions, those of the next are what it left.
        sizes = [self.num_examples - first]
        for places in self.sets:
            sizes.append(sizes[-1] - sum(_reads(places, epoch, sizes[-1])))
        for places, size in reversed(list(zip(self.sets, sizes[:-1], strict=True))):
            positions = _before(np.array(_reads(places, epoch, size)), positions, size)
        return positions + first

    def after(self, places: Sequence[Place]) -> "Remainder":
        """What is left once the readers that shared this remainder have come to `places`."""
        ended = tuple(places)
        epoch = min(at for at, _ in ended)
        while not dataclasses.replace(self, sets=(*self.sets, ended)).size(epoch):
            epoch += 1
        start, sets = self._first(epoch), self.sets
        # What every reader has read in full rounds of the dealing is the beginning of what
        # was unread. If it covers the holes, then what is left now is one end of the
        # permutation dealt out to this set, whatever the earlier ones did: unless they
        # have read of later epochs too.
        rounds = min(_reads(ended, epoch, self.size(epoch)))
        tail, holes = self._tail(epoch)
        if rounds * len(ended) >= holes and all(at <= epoch for at, _ in itertools.chain(*sets)):
            start, sets = tail + rounds * len(ended) - holes, ()
            ended = tuple((at, position - rounds * (at == epoch)) for at, position in ended)
        kept = (places for places in (*sets, ended) if any(place > (epoch, 0) for place in places))
        return Remainder(self.num_examples, epoch, start, tuple(kept))

    def as_json(self) -> dict[str, Any]:
        """The same in numbers, lists and a dict, without the number of examples."""
        sets = [[list(place) for place in places] for places in self.sets]
        return {"epoch": self.epoch, "start": self.start, "sets": sets}

    @classmethod
    def from_json(cls, num_examples: int, value: Any) -> "Remainder":
        """Reads what `as_json` gives; raises a ValueError for anything else."""
        wrong = f"cursor has remainder={value}: not what a stream's cursor gives"
        try:
            epoch, start = value["epoch"], value["start"]
            sets = tuple(tuple((at, position) for at, position in places) for places in value["sets"])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(wrong) from error
        numbers = [epoch, start, *itertools.chain(*itertools.chain(*sets))]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError(wrong)
        if start >= num_examples or not all(sets):
            raise ValueError(wrong)
        return cls(num_examples, epoch, start, sets)

    def _first(self, epoch: int) -> int:
        """Where in an epoch's permutation the first example is that may be unread."""
        return self.start if epoch == self.epoch else 0

    def _tail(self, epoch: int) -> tuple[int, int]:
        """Where in an epoch's permutation the end begins that is all unread, and the holes before it."""
        tail, holes = self._first(epoch), 0
        for places in self.sets:
            reads = _reads(places, epoch, self.num_examples - tail + holes)
            # Counted in what was unread, which is the holes and then the tail.
            furthest = max(
                (reader + (read - 1) * len(places) + 1 for reader, read in enumerate(reads) if read),
                default=0,
            )
            tail += max(furthest - holes, 0)
            holes = max(furthest, holes) - sum(reads)
        return tail, holes


def _reads(places: Sequence[Place], epoch: int, size: int) -> list[int]:
    """How many of an epoch's `size` unread examples each reader of a set has read."""
    shares = (len(range(reader, size, len(places))) for reader in range(len(places)))
    return [
        share if at > epoch else position if at == epoch else 0
        for share, (at, position) in zip(shares, places, strict=True)
    ]


def _before(reads: np.ndarray, positions: np.ndarray, size: int) -> np.ndarray:
    """Positions among what a set has left become positions among what it found.

    Args:
        reads: int64[R], how many each of its readers has read.
        positions: int64[N].
        size: how many it found.
    """
    if not reads.any():
        return positions
    # The last one with so many left before it: by halving, as they only grow.
    low, high = positions.copy(), np.full_like(positions, size - 1)
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = middle - _read_before(reads, middle) <= positions
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def _read_before(reads: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """How many examples before some positions the readers of a set have read, int64[N]."""
    found = np.zeros_like(positions)
    for reader, read in enumerate(reads.tolist()):
        found += np.clip(-((reader - positions) // len(reads)), 0, read)
    return found
