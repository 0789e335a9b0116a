import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.noise import with_label_noise
from classact.data.source import ArraySource, DataError, SourceView
from classact.data.stream import IIDStream


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
seeds = st.integers(0, 2**32)


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
    restored = IIDStream(source, batch_size, **arguments, cursor=cursor)
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
    restored = IIDStream(source, 64, seed=0, cursor=stream.cursor)
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
        read(IIDStream(source, 1, seed=0, cursor=stream.cursor), 300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
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
        {"reader": 1},
        {"num_readers": 3},
        {"num_examples": 11},
        {"epoch": -1},
        {"position": 6},
        {"position": 1.5},
        {"skipped": None},
    ],
)
def test_a_cursor_of_another_stream_is_refused(change):
    good = IIDStream(source_of(10), 2, seed=0, reader=0, num_readers=2).cursor
    with pytest.raises(ValueError, match=f"cursor has {next(iter(change))}="):
        IIDStream(source_of(10), 2, seed=0, reader=0, num_readers=2, cursor={**good, **change})
