"""Sources that show another one differently."""

import numpy as np
import pytest

from classact.data.source import ArraySource, DataError
from classact.data.views import Subset, held_out_split


def numbered(count=20, classes=5):
    """Image i is filled with i, and has label i % classes."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 6, 3))
    return ArraySource("numbered", images, np.arange(count) % classes, classes)


def test_subset_keeps_the_ids_of_the_full_data_set():
    subset = Subset(Subset(numbered(), np.array([9, 4, 6])), np.array([2, 0]))
    batch = subset.batch(np.array([0, 1]))
    assert subset.num_examples == 2
    assert batch["id"].tolist() == [6, 9]
    assert batch["image"][:, 0, 0, 0].tolist() == [6, 9]
    with pytest.raises(IndexError, match="index 2"):
        subset.batch(np.array([2]))
    with pytest.raises(DataError, match="without examples"):
        Subset(numbered(), np.array([], np.int64))


def ids(source):
    return source.batch(np.arange(source.num_examples))["id"].tolist()


def test_held_out_split_parts_the_source_at_random_by_seed():
    source = numbered(100)
    rest, held_out = held_out_split(source, 0.3, seed=1)
    assert len(ids(held_out)) == 30
    assert sorted(ids(rest) + ids(held_out)) == list(range(100))
    assert ids(held_out) == ids(held_out_split(source, 0.3, seed=1)[1])
    assert ids(held_out) != ids(held_out_split(source, 0.3, seed=2)[1])
    # Random: neither the first nor the last thirty.
    assert 10 < sum(index < 50 for index in ids(held_out)) < 20


def test_held_out_split_refuses_a_seed_of_more_than_32_bits():
    with pytest.raises(ValueError, match="seed=4294967297"):
        held_out_split(numbered(), 0.3, seed=2**32 + 1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, 0.001, float("nan")])
def test_held_out_split_refuses_to_leave_a_side_empty(fraction):
    with pytest.raises(ValueError, match="fraction="):
        held_out_split(numbered(), fraction, seed=0)
