import numpy as np
import pytest

from classact.data import registry
from classact.data.source import ArraySource, DataError
from classact.data.specs import check_same_task, open_source, register_source, source_names


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
        "captioned_folder", "digits", "fashion_mnist", "folder", "icon_pairs", "icons", "npz", "tar",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fashion-mnits", "unknown data source 'fashion-mnits'; did you mean fashion_mnist?"),
        ("", "unknown data source ''.*known: captioned_folder, digits"),
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


def source(shape=(2, 2, 1), classes=2, names=None):
    return ArraySource("s", np.zeros((2, *shape), np.uint8), np.arange(2), classes, names)


def test_sources_of_one_task_pass():
    check_same_task(source(classes=3), source(classes=2))
    check_same_task(source(names=["a", "b"]), source(names=["a", "b"]))
    check_same_task(source(names=["a", "b"]), source())


@pytest.mark.parametrize(
    ("train", "evaluation", "message"),
    [
        (source(), source(shape=(2, 3, 1)), r"images of shape \(2, 2, 1\) and \(2, 3, 1\)"),
        (source(), source(classes=3), "labels up to 2, expected at most 1"),
        (source(names=["a", "b"]), source(names=["a", "c"]), "classes differ: b, c"),
        (source(names=["a", "b"]), source(names=["b", "a"]), "classes differ: another order"),
    ],
)
def test_sources_of_two_tasks_are_refused(train, evaluation, message):
    with pytest.raises(DataError, match=message):
        check_same_task(train, evaluation)
