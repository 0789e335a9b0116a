import numpy as np
import pytest

from classact.data.source import ArraySource, DataError, Subset, held_out_split


def numbered(count=20, classes=5):
    """Image i is filled with i, and has label i % classes."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 6, 3))
    return ArraySource("numbered", images, np.arange(count) % classes, classes)


def test_batch_has_the_contract_s_fields_in_the_order_of_the_indices():
    batch = numbered().batch(np.array([7, 0, 7]))
    assert {field: (a.dtype.name, a.shape) for field, a in batch.items()} == {
        "id": ("int64", (3,)),
        "image": ("uint8", (3, 4, 6, 3)),
        "label": ("int32", (3,)),
    }
    assert batch["id"].tolist() == [7, 0, 7]
    assert batch["image"][:, 0, 0, 0].tolist() == [7, 0, 7]
    assert batch["label"].tolist() == [2, 0, 2]


@pytest.mark.parametrize("index", [-1, 20])
def test_an_index_outside_is_an_error(index):
    with pytest.raises(IndexError, match=f"{index}.*0 to 19"):
        numbered().batch(np.array([0, index]))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 1, 5, 9])}, r"file\.bin: example 2 has label 5, expected 0 to 4 \(2 such"),
        ({"labels": np.array([0, -1, 2, 3])}, "example 1 has label -1, expected 0 to 4"),
        ({"labels": np.array([0, 1, 2])}, "4 images but 3 labels: example 3 lacks"),
        ({"labels": np.array([0.0, 1, 2, 3])}, r"labels are float64\[4\], expected integers"),
        ({"labels": np.zeros((4, 1), np.int32)}, r"labels are int32\[4, 1\]"),
        ({"images": np.zeros((4, 2, 2, 1), np.float32)}, r"images are float32\[4, 2, 2, 1\], expected uint8"),
        ({"images": np.zeros((4, 2, 2), np.uint8)}, r"uint8\[4, 2, 2\], expected uint8\[N, H, W, C\]"),
        ({"images": np.zeros((0, 2, 2, 1), np.uint8), "labels": np.zeros(0, np.int32)}, "none of them 0"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"class_names": ["a", "b"]}, "2 class names for 5 classes"),
    ],
)
def test_bad_arrays_are_refused_with_file_and_example(change, message):
    arguments = {
        "images": np.zeros((4, 2, 2, 1), np.uint8),
        "labels": np.arange(4),
        "num_classes": 5,
        "origin": "file.bin",
        **change,
    }
    with pytest.raises(DataError, match=message):
        ArraySource("test", **arguments)
