import collections
import copy
import functools
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data import epoch_order
from classact.data.noise import with_label_noise
from classact.data.source import ArraySource, DataError
from classact.data.stream import IIDStream, newest_cursors
from classact.data.views import SourceView


@pytest.fixture(scope="module", params=["shuffled", "computed"], autouse=True)
def order(request):
    """Each test with permutations in memory, and with those of large sources."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "computed":
            patch.setattr(epoch_order, "MOST_IN_MEMORY", 0)
        yield request.param


def permutation(seed, epoch, count):
    """An epoch's, of the kind that the streams of this test have."""
    return _permutation(bool(epoch_order.MOST_IN_MEMORY), seed, epoch, count)


@functools.lru_cache(maxsize=1000)
def _permutation(shuffled, seed, epoch, count):
    if shuffled:
        return np.random.default_rng([seed, epoch]).permutation(count)
    return epoch_order.permuted(np.arange(count), count, seed, epoch)


def source_of(count):
    images = np.zeros((count, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 256
    return ArraySource("test", images, np.arange(count) % 3, 3)


class Damaged(SourceView):
    """Leaves out the examples of some ids."""

    def __init__(self, source, damaged):
        super().__init__(source)
        self.damaged = damaged

    def batch(self, indices):
        return self.source.batch(indices[~np.isin(indices, self.damaged)])


def read(stream, batches):
    return np.concatenate([next(stream)["id"] for _ in range(batches)])


counts = st.integers(1, 60)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(count=counts, batch_size=st.integers(1, 70), seed=seeds)
def test_every_epoch_is_the_whole_source_once(count, batch_size, seed):
    stream = IIDStream(source_of(count), batch_size, seed)
    ids = read(stream, -(-3 * count // batch_size))
    for epoch in range(3):
        assert sorted(ids[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=counts, seed=seeds)
def test_readers_split_every_epoch_without_overlap(data, count, seed):
    readers = data.draw(st.integers(1, count))
    source = source_of(count)
    shares = [
        read(IIDStream(source, 1, seed, reader, readers), 3 * size).reshape(3, size)
        for reader, size in enumerate(len(range(reader, count, readers)) for reader in range(readers))
    ]
    for epoch in range(3):
        ids = itertools.chain(*(share[epoch].tolist() for share in shares))
        assert sorted(ids) == list(range(count))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=counts, before=st.integers(0, 12), batch_size=st.integers(1, 30), seed=seeds)
def test_a_restored_stream_goes_on_identically(data, count, before, batch_size, seed):
    readers = data.draw(st.integers(1, count))
    arguments = {"seed": seed, "reader": data.draw(st.integers(0, readers - 1)), "num_readers": readers}
    source = with_label_noise(source_of(count), 0.5, seed=1)
    stream = IIDStream(source, batch_size, **arguments)
    read(stream, before) if before else None
    cursor = json.loads(json.dumps(stream.cursor))
    restored = IIDStream(source, batch_size, **arguments, cursors=[cursor])
    for _ in range(5):
        expected, actual = next(stream), next(restored)
        assert expected.keys() == actual.keys()
        for field in expected:
            np.testing.assert_array_equal(expected[field], actual[field])
    assert stream.cursor == restored.cursor


def test_batches_are_exact_and_rows_belong_together_across_epochs():
    stream = IIDStream(source_of(10), 7, seed=0)
    for _ in range(6):
        batch = next(stream)
        assert {field: a.shape for field, a in batch.items()} == {
            "id": (7,),
            "image": (7, 2, 2, 1),
            "label": (7,),
        }
        assert batch["image"][:, 0, 0, 0].tolist() == batch["id"].tolist()
        assert batch["label"].tolist() == (batch["id"] % 3).tolist()
    assert stream.epoch == pytest.approx(4.2)


def test_order_differs_by_epoch_and_seed_and_repeats_by_seed():
    first, second = read(IIDStream(source_of(100), 100, seed=0), 2).reshape(2, 100)
    assert first.tolist() != second.tolist()
    assert first.tolist() != read(IIDStream(source_of(100), 100, seed=1), 1).tolist()
    assert first.tolist() == read(IIDStream(source_of(100), 100, seed=0), 1).tolist()


def test_shuffling_is_uniform():
    """Every example is equally often among the first tenth of an epoch."""
    source, hits = source_of(50), np.zeros(50)
    for seed in range(1000):
        hits[next(IIDStream(source, 5, seed))["id"]] += 1
    chi_square = ((hits - 100) ** 2 / 100).sum()
    # 49 degrees of freedom, somewhat less than independent: mean below 49.
    assert 15 < chi_square < 90


def test_fields_of_any_task_are_passed_on():
    class Captions(SourceView):
        def batch(self, indices):
            return {"id": indices, "text": np.stack([indices, indices + 1], 1)}

    batch = next(IIDStream(Captions(source_of(4)), 6, seed=0))
    assert set(batch) == {"id", "text"}
    assert batch["text"].shape == (6, 2)
    assert batch["text"][:, 0].tolist() == batch["id"].tolist()


def test_damaged_examples_are_made_up_for_and_resumption_still_holds():
    source = Damaged(source_of(300), damaged=[17, 170])
    stream = IIDStream(source, 64, seed=0)
    ids = np.concatenate([next(stream)["id"] for _ in range(20)])
    assert len(ids) == 20 * 64
    for epoch in range(4):
        assert sorted(ids[epoch * 298 : (epoch + 1) * 298].tolist()) == sorted(set(range(300)) - {17, 170})
    restored = IIDStream(source, 64, seed=0, cursors=[stream.cursor])
    assert read(restored, 5).tolist() == read(stream, 5).tolist()


def test_more_than_one_percent_of_a_share_damaged_stops_the_stream():
    stream = IIDStream(Damaged(source_of(300), damaged=[3, 33, 133, 233]), 10, seed=0)
    with pytest.raises(DataError, match=r"4 of \d+ examples of epoch 0 are damaged"):
        read(stream, 31)
    every = IIDStream(Damaged(source_of(5), damaged=list(range(5))), 2, seed=0)
    with pytest.raises(DataError, match="damaged"):
        next(every)


def test_counting_of_damage_goes_on_after_a_restore():
    source = Damaged(source_of(300), damaged=[3, 33, 133, 233])
    stream = IIDStream(source, 1, seed=0)
    while stream.cursor["skipped"] < 3:
        next(stream)
    with pytest.raises(DataError, match="4 of"):
        read(IIDStream(source, 1, seed=0, cursors=[stream.cursor]), 300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296: must be"),
        ({"num_readers": 0}, "num_readers=0"),
        ({"num_readers": 11}, "num_readers=11: expected 1 to 10"),
        ({"reader": 1}, "reader=1: expected 0 to 0"),
        ({"reader": -1}, "reader=-1"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"batch_size": 2, "seed": 0, "reader": 0, "num_readers": 1, **change}
    with pytest.raises(ValueError, match=message):
        IIDStream(source_of(10), **arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"reader": 2},
        {"num_readers": 0},
        {"num_readers": 11},
        {"num_examples": 11},
        {"generation": -1},
        {"generation": None},
        {"epoch": -1},
        {"position": 6},
        {"position": 1.5},
        {"skipped": None},
        {"skipped": 3},
        {"remainder": None},
        {"remainder": {"epoch": 0, "start": 10, "sets": []}},
        {"remainder": {"epoch": 0, "start": 0, "sets": [[]]}},
        {"remainder": {"epoch": 0, "start": 0, "sets": [[[0]]]}},
        {"remainder": {"epoch": 0, "start": 0, "sets": [[[0, "1"]]]}},
        {"remainder": {"epoch": 0, "sets": []}},
        {"remainder": {"epoch": 1, "start": 0, "sets": []}, "epoch": 0},
    ],
)
def test_a_cursor_of_another_stream_is_refused(change):
    stream = IIDStream(source_of(10), 2, seed=0, reader=0, num_readers=2)
    next(stream)
    field = list(change)[-1]
    with pytest.raises(ValueError, match=f"cursor has {field}="):
        IIDStream(source_of(10), 2, seed=0, reader=0, num_readers=2, cursors=[{**stream.cursor, **change}])


def begin(count, seed, readers, cursors=None):
    """All readers of a stream, reading one example at a time."""
    return [IIDStream(source_of(count), 1, seed, reader, readers, cursors) for reader in range(readers)]


def take(stream, examples):
    """Reads (epoch, index), one example at a time."""
    taken = []
    for _ in range(examples):
        (index,) = next(stream)["id"].tolist()
        taken.append((stream.cursor["epoch"], index))
    return taken


def take_before(stream, epoch, most=None):
    """Reads what is left to a reader before an epoch, or only some of it."""
    taken = []
    while len(taken) != most and take(copy.copy(stream), 1)[0][0] < epoch:
        taken += take(stream, 1)
    return taken


class Dealer:
    """What readers should read, from lists of what is left of every epoch."""

    def __init__(self, count, seed):
        self.count, self.seed = count, seed
        self.gone, self.readers = set(), 0

    def begin(self, readers):
        """Deals anew if the number of readers has changed."""
        if readers != self.readers:
            self.readers, left = readers, frozenset(self.gone)
            self.hands = [self.hand(reader, left) for reader in range(readers)]

    def hand(self, reader, gone):
        readers = self.readers
        for epoch in itertools.count():
            order = permutation(self.seed, epoch, self.count).tolist()
            left = [(epoch, index) for index in order if (epoch, index) not in gone]
            yield from left[reader::readers]

    def take(self, reader, examples):
        taken = list(itertools.islice(self.hands[reader], examples))
        self.gone.update(taken)
        return taken


@st.composite
def histories(draw):
    """(examples of the source, how many the readers of one generation after another read)."""
    count = draw(st.integers(1, 30))
    generations = []
    for _ in range(draw(st.integers(1, 6))):
        readers = draw(st.integers(1, min(count, 6)))
        # Often about as many each, so that holes are filled; sometimes far apart.
        most = draw(st.sampled_from([3, 10, 3 * count]))
        least = draw(st.integers(0, most))
        generations.append(draw(st.lists(st.integers(least, most), min_size=readers, max_size=readers)))
    return count, generations


def last_cursors(data, streams):
    """As a caller has them: in any order, through JSON, some that have read nothing missing."""
    cursors = [json.loads(json.dumps(stream.cursor)) for stream in streams]
    known = [
        cursor
        for cursor in cursors
        if (cursor["epoch"], cursor["position"]) != (cursor["remainder"]["epoch"], 0)
        or data.draw(st.booleans())
    ]
    return data.draw(st.permutations(known or cursors))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), history=histories(), seed=seeds)
def test_readers_of_any_numbers_read_every_epoch_once(data, history, seed):
    count, generations = history
    seen, cursors = [], None
    for reads in generations:
        streams = begin(count, seed, len(reads), cursors)
        for stream, examples in zip(streams, reads, strict=True):
            seen += take(stream, examples)
        cursors = last_cursors(data, streams)
    epochs = max((epoch for epoch, _ in seen), default=0) + 1
    readers = data.draw(st.integers(1, min(count, 6)))
    for stream in begin(count, seed, readers, cursors):
        seen += take_before(stream, epochs)
    assert collections.Counter(seen) == collections.Counter(itertools.product(range(epochs), range(count)))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), history=histories(), seed=seeds, batch_size=st.integers(1, 9))
def test_what_is_left_is_dealt_out_in_the_order_of_the_permutations(data, history, seed, batch_size):
    count, generations = history
    source, dealer, cursors = source_of(count), Dealer(count, seed), None
    for reads in generations:
        readers = len(reads)
        dealer.begin(readers)
        streams = [IIDStream(source, batch_size, seed, reader, readers, cursors) for reader in range(readers)]
        for reader, (stream, batches) in enumerate(zip(streams, reads, strict=True)):
            ids = read(stream, batches).tolist() if batches else []
            assert ids == [index for _, index in dealer.take(reader, batches * batch_size)]
        cursors = last_cursors(data, streams)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), history=histories(), seed=seeds)
def test_a_reader_that_restarts_alone_goes_on_where_it_was(data, history, seed):
    """Whatever else the caller has: stale cursors, and none of those that never gave one."""
    count, generations = history
    everything, cursors = [], None
    for reads in generations:
        streams = begin(count, seed, len(reads), cursors)
        for stream, examples in zip(streams, reads, strict=True):
            take(stream, examples)
            everything.append(stream.cursor)
        cursors = newest_cursors(everything)
        for reader, stream in enumerate(streams):
            again = IIDStream(source_of(count), 1, seed, reader, len(reads), cursors)
            assert again.cursor == stream.cursor
            assert take(again, 5) == take(stream, 5)


def test_a_reader_without_a_cursor_learns_its_part_from_another():
    olds = begin(50, 3, 4)
    for old in olds:
        take(old, 5)
    cursors = [old.cursor for old in olds]
    first, second = begin(50, 3, 2, cursors)
    take(first, 2)
    # `second` ends before it has given a cursor, and `first` has: or neither has.
    for known in [*cursors, first.cursor], cursors:
        again = IIDStream(source_of(50), 1, 3, 1, 2, newest_cursors(known))
        assert again.cursor == second.cursor
    assert take(again, 15) == take(second, 15)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), count=st.integers(7, 30), epochs=st.integers(1, 3), seed=seeds)
def test_the_cursor_is_plain_again_when_the_begun_epochs_are_read(data, count, epochs, seed):
    cursors, numbers = None, st.integers(1, 6)
    for _ in range(data.draw(st.integers(1, 4))):
        streams = begin(count, seed, data.draw(numbers), cursors)
        for stream in streams:
            take_before(stream, epochs, data.draw(st.integers(0, count)))
        cursors = [stream.cursor for stream in streams]
    streams = begin(count, seed, data.draw(numbers), cursors)
    for stream in streams:
        take_before(stream, epochs)
    cursors = [stream.cursor for stream in streams]
    expected = {"epoch": epochs, "start": 0, "sets": []}
    for stream in begin(count, seed, len(streams) + 1, cursors):
        cursor = stream.cursor
        assert (cursor["remainder"], cursor["epoch"], cursor["position"]) == (expected, epochs, 0)


def test_the_epoch_counts_what_earlier_readers_have_read():
    old = IIDStream(source_of(40), 10, seed=0)
    next(old)
    for stream in begin(40, 0, 2, [old.cursor]):
        assert stream.epoch == 0.25
        take(stream, 5)
        assert stream.epoch == 0.5


def test_a_reader_for_whom_nothing_is_left_goes_on_with_later_epochs():
    class NeverEmpty(SourceView):
        def batch(self, indices):
            assert len(indices)
            return self.source.batch(indices)

    # All of ten readers but the first read their one example of two epochs.
    olds = begin(10, 0, 10)[1:]
    for old in olds:
        take(old, 2)
    last = IIDStream(NeverEmpty(source_of(10)), 3, 0, 2, 3, [old.cursor for old in olds])
    assert (last.cursor["epoch"], last.cursor["position"], last.epoch) == (0, 0, 1.0)
    assert next(last)["id"].tolist() == permutation(0, 2, 10)[2::3].tolist()


def test_what_is_left_may_have_as_many_damaged_examples_as_a_whole_share():
    order = permutation(0, 0, 600)
    old = IIDStream(source_of(600), 590, seed=0)
    next(old)
    # The ten that are left are dealt out to two, whose whole shares would be 300.
    few = Damaged(source_of(600), order[-3:])
    ids = [next(IIDStream(few, 5, 0, reader, 2, [old.cursor]))["id"].tolist() for reader in range(2)]
    assert [ids[0][:4], ids[1][:3]] == [order[[590, 592, 594, 596]].tolist(), order[[591, 593, 595]].tolist()]
    many = Damaged(source_of(600), np.arange(0, 600, 2))
    with pytest.raises(DataError, match=r"\d+ of \d+ examples of epoch \d are damaged, expected at most 6"):
        read(IIDStream(many, 1, 0, 0, 2, [old.cursor]), 20)


def test_a_share_of_a_set_that_has_not_too_much_damage_never_stops_the_stream():
    # Exactly 1 %, of which a share can have more than its part by chance.
    source = Damaged(source_of(400), damaged=[5, 105, 205, 305])
    for reader in range(8):
        assert len(read(IIDStream(source, 10, 3, reader, 8), 100)) == 1000
    # Three readers of three examples, one of them sound: most epochs give a reader nothing.
    lone = Damaged(source_of(3), damaged=[0, 1])
    assert read(IIDStream(lone, 1, 0, 0, 3), 20).tolist() == [2] * 20
    with pytest.raises(DataError, match="all examples of reader 1 are damaged"):
        next(IIDStream(Damaged(source_of(3), damaged=[0, 1, 2]), 1, 0, 1, 3))


def test_the_captions_of_a_damaged_image_count_as_one():
    source = source_of(100)
    source.captioned, source.image_of = True, np.arange(100) // 5
    # Fifteen pairs, three images of five captions.
    stream = IIDStream(Damaged(source, damaged=list(range(15))), 10, seed=0)
    assert set(read(stream, 17).tolist()) == set(range(15, 100))
    with pytest.raises(DataError, match="expected at most 15 of an epoch"):
        read(IIDStream(Damaged(source, damaged=list(range(16))), 10, seed=0), 17)


def test_the_newest_generation_wins_with_the_furthest_cursor_of_each_reader():
    old = begin(20, 0, 3)
    stale = [stream.cursor for stream in old]
    streams = begin(20, 0, 2, stale)
    early = [stream.cursor for stream in streams]
    for stream in streams:
        take(stream, 15)
    late = [stream.cursor for stream in streams]
    assert newest_cursors([late[1], *stale, *early, late[0]]) == late
    assert newest_cursors(iter([stale[2], early[1], stale[1]])) == [early[1]]
    assert newest_cursors(stale[::-1]) == stale
    assert newest_cursors([]) == []


def test_cursors_that_do_not_belong_together_are_refused():
    old = begin(20, 0, 3)
    take(old[0], 1)
    two, four = (begin(20, 0, readers, [old[0].cursor])[0].cursor for readers in (2, 4))
    plain, other = old[1].cursor, IIDStream(source_of(20), 1, seed=1).cursor
    moved = {**two, "reader": 1, "remainder": {"epoch": 0, "start": 1, "sets": []}}
    for cursors, field in [
        ([two, four], "num_readers"),
        ([two, moved], "remainder"),
        ([two, {**two, "generation": 2}], "generation"),
        ([plain, plain], "reader"),
    ]:
        with pytest.raises(ValueError, match=f"cursors have {field}="):
            IIDStream(source_of(20), 1, 0, cursors=cursors)
    for cursors, field in [
        ([two, four], "num_readers"),
        ([two, moved], "remainder"),
        ([plain, other], "seed"),
    ]:
        with pytest.raises(ValueError, match=f"cursors have {field}="):
            newest_cursors([plain, *cursors])
    with pytest.raises(ValueError, match="cursor has generation=None"):
        newest_cursors([{"seed": 0}])


def test_cursors_of_a_version_without_computed_orders_go_on_in_theirs(order):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epoch_order, "MOST_IN_MEMORY", 1 << 24)
        old = IIDStream(source_of(50), 10, seed=3)
        next(old)
        assert "order" not in old.cursor
    resumed = IIDStream(source_of(50), 40, seed=3, cursors=[old.cursor])
    expected = np.random.default_rng([3, 0]).permutation(50)[10:]
    assert next(resumed)["id"].tolist() == expected.tolist()
    assert "order" not in resumed.cursor
    new = IIDStream(source_of(50), 10, seed=3)
    if order == "computed":
        with pytest.raises(ValueError, match="order"):
            newest_cursors([old.cursor, new.cursor])
        with pytest.raises(ValueError, match="order=other: of a newer version"):
            IIDStream(source_of(50), 10, seed=3, cursors=[{**new.cursor, "order": "other"}])
