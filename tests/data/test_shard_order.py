import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.shard_order import Epoch, Piece, ShardRemainder, select

seeds = st.integers(0, 2**32 - 1)


@st.composite
def ranges(draw):
    """Rising ranges, some of which meet."""
    steps = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=6))
    found, at = [], 0
    for gap, length in steps:
        found.append([at + gap, at + gap + length])
        at += gap + length
    return np.array(found, np.int64)


def places_of(found):
    """The places in ranges, one by one."""
    return [place for first, last in found.tolist() for place in range(first, last)]


def by_key(piece):
    """The whole order of a piece, from the keys of all of it."""
    own = np.arange(len(piece))
    first, ranks = piece._around(0, len(piece))
    assert first == 0 and sorted(ranks.tolist()) == own.tolist()
    return ranks.tolist()


@settings(max_examples=60, deadline=None)
@given(found=ranges(), buffer=st.integers(1, 20), salt=seeds, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_the_order_is_the_same_wherever_a_reader_begins(found, buffer, salt, cuts):
    piece = Piece(found, buffer, salt)
    whole = by_key(piece)
    for place, leaves in enumerate(np.argsort(whole).tolist()):
        assert abs(place - leaves) < buffer
    stops = sorted({min(cut, len(piece)) for cut in cuts} | {0, len(piece)})
    parts = [piece.order(start, stop).tolist() for start, stop in itertools.pairwise(stops)]
    assert list(itertools.chain(*parts)) == whole
    assert piece.places(np.arange(len(piece))).tolist() == places_of(found)
    for stop in stops:
        gone = set(whole[:stop])
        left = [place for place in range(len(piece)) if place not in gone]
        unread, behind = piece.unread(stop)
        assert left == [*unread.tolist(), *range(behind, len(piece))]
        every = places_of(found)
        assert places_of(piece.rest(stop)) == [every[place] for place in left]


@settings(max_examples=60, deadline=None)
@given(found=ranges(), data=st.data())
def test_parts_of_ranges_are_those_of_their_places(found, data):
    every = places_of(found)
    ends = sorted(data.draw(st.lists(st.integers(0, len(every)), max_size=8)))
    wanted = np.array(list(zip(ends[::2], ends[1::2], strict=False)), np.int64).reshape(-1, 2)
    taken = select(found, wanted)
    assert places_of(taken) == [place for a, b in wanted.tolist() for place in every[a:b]]
    assert np.all(taken[1:, 0] > taken[:-1, 1])


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=8), seed=seeds, epoch=st.integers(0, 5))
def test_a_sequence_is_all_shards_each_in_its_order(sizes, seed, epoch):
    starts = np.concatenate([[0], np.cumsum(sizes)])
    found = Epoch(starts, seed, epoch).indices(np.arange(starts[-1])).tolist()
    shards = [list(range(a, b)) for a, b in itertools.pairwise(starts.tolist()) if b > a]
    assert sorted(found) == list(range(starts[-1]))
    for shard in shards:
        at = found.index(shard[0])
        assert found[at : at + len(shard)] == shard


def test_every_order_of_shards_is_equally_likely():
    starts = np.arange(4)
    found = [
        tuple(Epoch(starts, seed, epoch).indices(np.arange(3))) for seed in range(60) for epoch in range(10)
    ]
    counts = [found.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 600 and ((np.array(counts) - 100) ** 2 / 100).sum() < 21


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    buffer=st.integers(1, 12),
    seed=seeds,
    data=st.data(),
)
def test_what_readers_leave_is_dealt_out_evenly(sizes, buffer, seed, data):
    starts = np.concatenate([[0], np.cumsum(sizes)])
    count = int(starts[-1])
    remainder = ShardRemainder(starts, buffer, seed)
    gone = set()
    for _ in range(data.draw(st.integers(1, 5))):
        readers = data.draw(st.integers(1, 5))
        places = []
        before = {epoch: remainder.size(epoch) for epoch in range(4)}
        for reader in range(readers):
            epoch = data.draw(st.integers(remainder.epoch, 3))
            share = remainder.share(reader, readers, epoch)
            places.append((epoch, data.draw(st.integers(0, share))))
            for earlier in range(remainder.epoch, epoch + 1):
                piece = remainder.piece(reader, readers, earlier)
                assert before[earlier] // readers <= len(piece) <= -(-before[earlier] // readers)
                order = piece.places(piece.order(0, len(piece))).tolist()
                taken = {(earlier, place) for place in order[: places[-1][1] if earlier == epoch else None]}
                assert not taken & gone
                gone |= taken
        remainder = ShardRemainder(starts, buffer, seed).from_json(remainder.after(places).as_json())
        for epoch in range(remainder.epoch, 5):
            left = set(range(count)) - {place for at, place in gone if at == epoch}
            assert set(places_of(remainder.unread(epoch))) == left
        assert remainder.size(remainder.epoch)
        if remainder.epoch > 3:
            break


def test_sets_are_forgotten_once_their_epoch_is_done():
    remainder = ShardRemainder(np.array([0, 5, 10]), 3, 0)
    begun = remainder.after([(0, 2), (0, 3)])
    assert begun.as_json() == {"epoch": 0, "sets": [[[0, 2], [0, 3]]]}
    assert begun.after([(0, 0)]).as_json()["sets"] == [[[0, 2], [0, 3]]]
    assert begun.after([(1, 0), (0, 3)]).as_json() == {"epoch": 1, "sets": []}
    assert begun.after([(1, 2), (0, 3)]).as_json() == {"epoch": 1, "sets": [[[1, 2], [0, 3]]]}


@pytest.mark.parametrize(
    "value", [None, {}, {"epoch": 0}, {"epoch": -1, "sets": []}, {"epoch": 0, "sets": [[]]},
              {"epoch": 0, "sets": [[[0]]]}, {"epoch": 0, "sets": [[[0, "1"]]]}],
)  # fmt: skip
def test_what_is_no_remainder_is_refused(value):
    with pytest.raises(ValueError, match="cursor has remainder="):
        ShardRemainder(np.array([0, 5]), 3, 0).from_json(value)
