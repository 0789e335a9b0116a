import collections
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.shard_stream import ShardStream, make_stream
from classact.data.source import ArraySource, DataError, InShards
from classact.data.stream import IIDStream, newest_cursors
from classact.data.views import SourceView, Subset, Without

seeds = st.integers(0, 2**32 - 1)


class Shards(SourceView):
    """Examples in shards of some sizes; holds what is loaded until it is read."""

    def __init__(self, sizes, buffer, damaged=()):
        count = sum(sizes)
        super().__init__(ArraySource("test", np.zeros((count, 1, 1, 1), np.uint8), np.arange(count) % 5, 5))
        self.in_shards = InShards(np.concatenate([[0], np.cumsum(sizes)]), buffer)
        self.damaged = damaged
        self.held, self.most, self.loads, self.expected = collections.Counter(), 0, [], []

    def load(self, indices):
        self.held.update(indices.tolist())
        self.loads += indices.tolist()
        self.most = max(self.most, self.held.total())

    def expect(self, index):
        self.expected.append((len(self.loads), index))

    def batch(self, indices):
        for index in indices.tolist():
            assert self.held[index] > 0, "not loaded"
            self.held[index] -= 1
        return self.source.batch(indices[~np.isin(indices, self.damaged)])


def read(stream, examples):
    return [int(next(stream)["id"][0]) for _ in range(examples)]


def begin(sizes, buffer, seed, readers, cursors=None):
    """All readers of a stream, reading one example at a time."""
    return [
        ShardStream(Shards(sizes, buffer), 1, seed, reader, readers, cursors) for reader in range(readers)
    ]


shards = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) >= 5)


@settings(max_examples=40, deadline=None)
@given(sizes=shards, buffer=st.integers(1, 20), seed=seeds, readers=st.integers(1, 5))
def test_readers_read_every_epoch_once_and_hold_no_more_than_the_buffer(sizes, buffer, seed, readers):
    count = sum(sizes)
    seen = collections.Counter()
    for stream in begin(sizes, buffer, seed, readers):
        share = stream._whole_share
        for epoch in range(3):
            seen.update((epoch, index) for index in read(stream, share))
        source = stream._source
        # What is given out at once is one more.
        assert source.most <= buffer + 1 and not source.held.total()
        assert len(source.loads) == 3 * share
    assert seen == collections.Counter(itertools.product(range(3), range(count)))


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    sizes=shards,
    buffer=st.integers(1, 20),
    seed=seeds,
    generations=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=5), min_size=1, max_size=5),
)
def test_readers_of_any_numbers_read_every_epoch_once(data, sizes, buffer, seed, generations):
    seen, cursors = collections.Counter(), None
    for reads in generations:
        streams = begin(sizes, buffer, seed, len(reads), cursors)
        for stream, examples in zip(streams, reads, strict=True):
            for _ in range(examples):
                (index,) = read(stream, 1)
                seen[stream.cursor["epoch"], index] += 1
        cursors = [json.loads(json.dumps(stream.cursor)) for stream in streams]
        # One that has read nothing may have said nothing.
        known = [own for own in cursors if (own["epoch"], own["position"]) != (own["remainder"]["epoch"], 0)]
        cursors = data.draw(st.permutations(newest_cursors(known or cursors)))
    epochs = max((epoch for epoch, _ in seen), default=0) + 1
    for stream in begin(sizes, buffer, seed, data.draw(st.integers(1, 5)), cursors):
        while True:
            (index,) = read(stream, 1)
            if stream.cursor["epoch"] >= epochs:
                break
            seen[stream.cursor["epoch"], index] += 1
    assert seen == collections.Counter(itertools.product(range(epochs), range(sum(sizes))))


@settings(max_examples=40, deadline=None)
@given(sizes=shards, buffer=st.integers(1, 20), seed=seeds, before=st.integers(0, 60), size=st.integers(1, 9))
def test_a_restored_stream_goes_on_identically_and_reads_back_no_more_than_the_buffer(
    sizes, buffer, seed, before, size
):
    stream = ShardStream(Shards(sizes, buffer), size, seed, 1, 2)
    ids = [next(stream)["id"].tolist() for _ in range(before)]
    assert len(ids) == before
    source = Shards(sizes, buffer)
    restored = ShardStream(source, 1, seed, 1, 2, [stream.cursor])
    expected = itertools.chain.from_iterable(next(stream)["id"].tolist() for _ in range(5))
    assert read(restored, 5 * size) == list(expected)
    again = ShardStream(Shards(sizes, buffer), 1, seed, 1, 2, [stream.cursor])
    first = read(again, 1)[0]
    assert first in again._source.loads and again._source.most <= buffer + 1


def test_each_shard_is_read_in_its_order():
    source = Shards([50] * 8, 30)
    stream = ShardStream(source, 7, seed=3)
    for _ in range(60):
        next(stream)
    loads = np.array(source.loads[:400])
    assert sorted(loads.tolist()) == list(range(400))
    assert np.all(np.diff(loads.reshape(8, 50), axis=1) == 1)
    assert loads[::50].tolist() != sorted(loads[::50].tolist())


def test_the_next_shard_is_expected_while_one_is_loaded():
    source = Shards([50] * 8, 30)
    part = Without(source, np.array([0, 50, 399]))
    stream = ShardStream(part, 7, seed=3, reader=1, num_readers=2)
    while stream.epoch < 1:
        next(stream)
    # The beginnings of those shards that it comes to after the one that it begins in.
    order = np.array(source.loads[: stream._whole_share]) // 50
    begins = [i for i in range(1, len(order)) if order[i] != order[i - 1]]
    assert [index for _, index in source.expected][: len(begins)] == [source.loads[i] for i in begins]
    assert all(told <= begin for (told, _), begin in zip(source.expected, begins, strict=False))


def neighbours(labels):
    """How often two that follow each other are of one class."""
    return float(np.mean(labels[1:] == labels[:-1]))


def correlation(one, other):
    return float(np.corrcoef(one, other)[0, 1])


def test_the_order_is_close_to_iid_as_far_as_the_buffer_reaches():
    """40 shards of 250 examples, each sorted by its 5 classes, and a buffer of four shards."""
    sizes, count = [250] * 40, 10_000
    orders = []
    for seed in range(6):
        stream = ShardStream(Shards(sizes, 1000), count, seed)
        orders.append(next(stream)["id"])
    of_class = np.arange(count) % 250 // 50
    # Where an example is drawn says nothing of where it lies in its shard. Of an epoch's 10,000, IID
    # ones would have a standard deviation of 0.01.
    within = [correlation(np.arange(count), order % 250) for order in orders]
    assert max(map(abs, within)) < 0.05
    # Nor of which shard it is, epochs together: 40 shards in random order have 0.16 each.
    assert abs(np.mean([correlation(np.arange(count), order // 250) for order in orders])) < 0.25
    # Read in sequence, 98 % of neighbours would be of one class; IID, 20 %.
    mixed = np.mean([neighbours(of_class[order]) for order in orders])
    iid = neighbours(of_class[np.random.default_rng(0).permutation(count)])
    assert abs(iid - 0.2) < 0.02 and abs(mixed - 0.2) < 0.03
    # With a buffer of a fifth of a class's run it is not, which the docstring says.
    short = ShardStream(Shards(sizes, 10), count, 0)
    assert neighbours(of_class[next(short)["id"]]) > 0.8


def test_examples_leave_equally_often_at_each_place_of_the_buffer():
    stream = ShardStream(Shards([20_000], 100), 20_000, seed=0)
    order = next(stream)["id"]
    delay = (np.arange(20_000) - order)[1000:-1000]
    # An example lies at p, and leaves at about p + 100·u, less the 50 that are still held on average.
    counts = np.histogram(delay, bins=8, range=(-40.5, 39.5))[0]
    assert np.all(np.abs(counts / 1800 - 1) < 0.15) and np.abs(delay).max() < 80


def test_damaged_examples_are_made_up_for_and_counted():
    source = Shards([100, 200], 40, damaged=[17, 170])
    stream = ShardStream(source, 64, seed=0)
    ids = np.concatenate([next(stream)["id"] for _ in range(20)])
    for epoch in range(4):
        assert sorted(ids[epoch * 298 : (epoch + 1) * 298].tolist()) == sorted(set(range(300)) - {17, 170})
    with pytest.raises(DataError, match=r"4 of \d+ examples of epoch 0 are damaged"):
        ids = [next(stream) for stream in [ShardStream(Shards([300], 40, [1, 2, 3, 4]), 300, 0)]]


def test_parts_of_a_source_keep_its_shards():
    source = Shards([10, 20, 30], 7)
    out = np.array([0, 9, 10, 59])
    left = Without(source, out)
    assert left.in_shards.starts.tolist() == [0, 8, 27, 56] and left.in_shards.buffer == 7
    chosen = Subset(source, np.setdiff1d(np.arange(60), out))
    assert chosen.in_shards.starts.tolist() == [0, 8, 27, 56]
    every = np.arange(56)
    assert left.ids(every).tolist() == chosen.ids(every).tolist()
    np.testing.assert_array_equal(left.label_of, source.label_of[left.ids(every)])
    ids = [next(ShardStream(part, 56, 0))["id"].tolist() for part in (left, chosen)]
    assert ids[0] == ids[1] and sorted(ids[0]) == sorted(set(range(60)) - set(out.tolist()))
    assert Subset(source, np.array([3, 2])).in_shards is None
    with pytest.raises(IndexError):
        left.ids(np.array([56]))


def test_a_source_says_how_it_is_read():
    source = Shards([10, 20], 7)
    assert isinstance(make_stream(source, 4, 0), ShardStream)
    plain = ArraySource("plain", np.zeros((30, 1, 1, 1), np.uint8), np.zeros(30, int), 1)
    assert isinstance(make_stream(plain, 4, 0), IIDStream)
    with pytest.raises(ValueError, match="plain is in no shards"):
        ShardStream(plain, 4, 0)


def test_cursors_of_another_order_or_buffer_are_refused():
    ours = ShardStream(Shards([10, 20], 7), 1, 0).cursor
    theirs = IIDStream(Shards([10, 20], 7), 1, 0).cursor
    with pytest.raises(ValueError, match=r"cursor has buffer=7, .* has 8"):
        ShardStream(Shards([10, 20], 8), 1, 0, cursors=[ours])
    with pytest.raises(ValueError, match=r"cursor has buffer=None, .* has 7"):
        ShardStream(Shards([10, 20], 7), 1, 0, cursors=[theirs])
    with pytest.raises(ValueError, match=r"cursor has buffer=7, .* has None"):
        IIDStream(Shards([10, 20], 7), 1, 0, cursors=[ours])
    with pytest.raises(ValueError, match="cursor has position="):
        ShardStream(Shards([10, 20], 7), 1, 0, cursors=[{**ours, "position": 31}])
