"""A user's source is held to its contract."""

import numpy as np
import pytest

from classact.data.checked import checked
from classact.data.source import ArraySource, DataError
from classact.data.views import SourceView


def squares(count=6):
    return ArraySource(
        "squares", np.zeros((count, 4, 4, 1), np.uint8), np.arange(count) % 3, 3, ["a", "b", "c"]
    )


class Changed(SourceView):
    """A source with another field in its batches, from a number of batches on."""

    def __init__(self, field, value, after=0):
        super().__init__(squares())
        self._field, self._value, self._left = field, value, after

    def batch(self, indices):
        batch = super().batch(indices)
        self._left -= 1
        if self._left < 0:
            batch[self._field] = self._value(batch[self._field])
        return batch


def test_a_source_that_keeps_it_passes_through():
    source = checked(squares(), "mine:squares")
    assert source.name == "mine:squares" and source.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(source.batch(np.array([4, 1]))["label"], [1, 1])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (
            "label",
            lambda label: label.astype(np.int64),
            r"'label' of a batch is int64\[2\], expected int32\[2\]",
        ),
        ("label", lambda label: label + 3, "label 3, expected 0 to 2"),
        ("label", list, r"'label' of a batch is list\[2\]"),
        ("image", lambda image: image / 255, r"'image' of a batch is float64.*expected uint8\[2, 4, 4, 1\]"),
        ("image", lambda image: image[:, :2], r"uint8\[2, 2, 4, 1\], expected uint8\[2, 4, 4, 1\]"),
        ("id", lambda ids: ids[:1], r"'image' of a batch is uint8\[2, 4, 4, 1\], expected uint8\[1,"),
    ],
)
def test_a_batch_that_breaks_it_is_named(field, value, said):
    with pytest.raises(DataError, match=f"mine:it.*{said}"):
        checked(Changed(field, value), "mine:it")


def test_later_batches_are_watched_too():
    source = checked(Changed("label", lambda label: label + 3, after=1), "mine:it")
    with pytest.raises(DataError, match="label 3"):
        source.batch(np.array([0, 1]))


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("num_examples", 0, "num_examples=0, expected a number of at least 1"),
        ("image_shape", (4, 4), r"image_shape=\(4, 4\), expected a tuple"),
        ("num_classes", None, "num_classes=None, expected"),
        ("class_names", ("a",), "num_classes=3 names"),
        ("captioned", True, r"image_of=None, expected int64\[6\]"),
    ],
)
def test_an_attribute_that_breaks_it_is_named(attribute, value, said):
    source = squares()
    setattr(source, attribute, value)
    with pytest.raises(DataError, match=f"'mine:it'.*{said}"):
        checked(source, "mine:it")


def test_what_is_no_source_is_named():
    with pytest.raises(DataError, match="'mine:it' opened a list"):
        checked([], "mine:it")
