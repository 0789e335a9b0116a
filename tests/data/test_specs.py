import numpy as np
import pytest

from classact.data import registry
from classact.data.source import ArraySource, DataError
from classact.data.specs import open_source, register_source, source_names


@pytest.fixture
def squares(monkeypatch):
    """A source that a user registers, for one test; its image side says the size option."""
    monkeypatch.setattr(registry, "_OPENERS", dict(registry._OPENERS))

    @register_source("squares")
    def open_squares(argument, split, *, size="2"):
        names = [argument, split]
        return ArraySource("x", np.zeros((2, int(size), int(size), 1), np.uint8), np.arange(2), 2, names)


@pytest.mark.parametrize(
    ("spec", "argument", "side"),
    [
        ("squares", "", 2),
        ("squares:a/b:c", "a/b:c", 2),
        ("squares?size=3", "", 3),
        ("squares:a?size=4", "a", 4),
        ("squares:a?b", "a?b", 2),
        ("squares:a?b?size=5", "a?b", 5),
    ],
)
def test_a_registered_source_gets_argument_split_and_options(squares, spec, argument, side):
    source = open_source(spec, "eval")
    assert source.name == spec
    assert source.class_names == (argument, "eval")
    assert source.image_shape == (side, side, 1)


def test_the_documented_names_are_registered():
    assert source_names() == [
        "arrayrecord", "captioned_folder", "csv", "digits", "fashion_mnist", "folder", "grain", "hf",
        "icon_pairs", "icons", "npz", "parquet", "python", "tar", "tfds", "tfrecord", "tsv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fashion-mnits", "unknown data source 'fashion-mnits'; did you mean fashion_mnist?"),
        ("", "unknown data source ''.*known: arrayrecord, captioned_folder, csv"),
        ("folders:x", "did you mean folder?"),
        ("squares?siz=3", "unknown option 'siz'; did you mean size?"),
        ("digits?size=3", "unknown option 'size' .known: none"),
        ("digits:x", "'digits' takes no argument, got 'x'"),
    ],
)
def test_a_mistyped_spec_gets_the_nearest_names(squares, spec, message):
    with pytest.raises(DataError, match=message):
        open_source(spec, "train")


def test_bad_splits_and_names_are_refused(squares):
    with pytest.raises(ValueError, match="split='test', expected one of"):
        open_source("digits", "test")
    with pytest.raises(ValueError, match="'squares' is taken"):
        register_source("squares")
    with pytest.raises(ValueError, match="'a:b': expected lower-case"):
        register_source("a:b")
