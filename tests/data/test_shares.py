import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.shares import Remainder


def test_what_a_set_has_read_is_left_out():
    remainder = Remainder(10).after([(0, 2), (0, 1), (0, 0)])
    # Dealt out to three: 0 3 6 9, 1 4 7, 2 5 8.
    assert remainder.unread(np.arange(10), 0).tolist() == [2, 4, 5, 6, 7, 8, 9]
    assert remainder.size(0) == 7
    assert remainder.unread(np.arange(10), 1).tolist() == list(range(10))


def test_readers_may_be_in_different_epochs():
    remainder = Remainder(5).after([(2, 1), (0, 1)])
    # Dealt out to two: 0 2 4, 1 3.
    assert [remainder.unread(np.arange(5), epoch).tolist() for epoch in range(4)] == [
        [3],
        [1, 3],
        [1, 2, 3, 4],
        [0, 1, 2, 3, 4],
    ]


@pytest.mark.parametrize(
    ("places", "epoch", "start", "sets"),
    [
        ([(0, 0), (0, 0)], 0, 0, ()),
        ([(0, 2), (0, 2)], 0, 4, ()),
        ([(0, 1), (0, 2)], 0, 2, (((0, 0), (0, 1)),)),
        ([(0, 3), (0, 2)], 1, 0, ()),
        ([(1, 0), (0, 2)], 1, 0, ()),
        ([(1, 1), (0, 2)], 1, 0, (((1, 1), (0, 2)),)),
    ],
)
def test_full_rounds_and_whole_epochs_need_no_set(places, epoch, start, sets):
    assert Remainder(5).after(places) == Remainder(5, epoch, start, sets)


def test_a_set_is_forgotten_once_its_holes_are_filled():
    first = Remainder(100).after([(0, 9), (0, 0), (0, 3)])
    assert (first.start, len(first.sets)) == (0, 1)
    # 25 examples up to the furthest, 12 of them read: 13 holes.
    assert len(first.after([(0, 6), (0, 8)]).sets) == 2
    assert first.after([(0, 13)]) == Remainder(100, 0, 25)
    second = first.after([(0, 7), (0, 8)])
    assert second == Remainder(100, 0, 26, (((0, 0), (0, 1)),))
    # A reader that stands still keeps everything, until the next ones have passed its place.
    third = second
    for readers in (3, 4, 5):
        third = third.after([(0, 0)] + [(0, 2)] * (readers - 1))
    assert len(third.sets) == 4
    assert third.after([(0, 40)]) == Remainder(100, 0, 100 - third.size(0) + 40)


def test_a_set_that_has_begun_a_later_epoch_is_kept_until_then():
    first = Remainder(100).after([(1, 3), (0, 45)])
    second = first.after([(0, 2), (0, 1), (0, 1)])
    assert (second.epoch, len(second.sets)) == (0, 2)
    third = second.after([(1, 30)])
    assert third == Remainder(100, 1, 33)


class Lists:
    """What is left of each epoch, one by one."""

    def __init__(self, count):
        self.count, self.epoch, self.gone = count, 0, set()

    def left(self, epoch):
        return [index for index in range(self.count) if (epoch, index) not in self.gone]

    def after(self, reads):
        """Has the readers of a set read so many each; returns where they have come to."""
        places, gone = [], set()
        for reader, examples in enumerate(reads):
            epoch, position = self.epoch, 0
            share = self.left(epoch)[reader :: len(reads)]
            for _ in range(examples):
                while position == len(share):
                    epoch, position = epoch + 1, 0
                    share = self.left(epoch)[reader :: len(reads)]
                gone.add((epoch, share[position]))
                position += 1
            places.append((epoch, position))
        self.gone |= gone
        while not self.left(self.epoch):
            self.epoch += 1
        return places


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_was_read_is_left_out(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    remainder, lists = Remainder(count), Lists(count)
    for _ in range(rng.integers(2, 8)):
        # Often about as many each, so that holes are filled; sometimes far apart.
        least, most = sorted(rng.integers(0, rng.choice([3, 10, 2 * count + 1]), 2).tolist())
        reads = rng.integers(least, most + 1, rng.integers(1, min(count, 6) + 1)).tolist()
        remainder = remainder.after(lists.after(reads))
        assert remainder.epoch == lists.epoch
        for epoch in range(lists.epoch, lists.epoch + 5):
            left = lists.left(epoch)
            assert remainder.size(epoch) == len(left)
            assert remainder.unread(np.arange(count), epoch).tolist() == left


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_one_set_is_enough_while_holes_are_filled_before_the_next_change(data):
    """Up to 8 readers leave at most 800 holes, and at least 4 read as many in full rounds."""
    remainder = Remainder(100_000)
    for _ in range(30):
        reads = data.draw(st.lists(st.integers(200, 300), min_size=4, max_size=8))
        left = remainder.size(0)
        remainder = remainder.after([(0, read) for read in reads])
        assert remainder.size(0) == left - sum(reads)
        assert len(remainder.sets) <= 1
        assert Remainder.from_json(100_000, json.loads(json.dumps(remainder.as_json()))) == remainder
