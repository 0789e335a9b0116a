import numpy as np
import pytest

from classact.data.source import ArraySource, DataError


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
