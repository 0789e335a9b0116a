"""What labels mean: how a source is shown to a model that knows its classes in another order."""

import json

import numpy as np
import pytest

from classact.data import classes, noise
from classact.data.classes import Classes
from classact.data.source import ArraySource, DataError
from classact.data.views import Subset


def known(*names):
    return Classes(len(names), names)


def source(*names, named=True, labels=None):
    """A source of one example a class, whose pixels are its label."""
    labels = np.arange(len(names)) if labels is None else np.asarray(labels)
    images = np.broadcast_to(labels[:, None, None, None], (len(labels), 2, 2, 1)).astype(np.uint8)
    return ArraySource("s", images, labels, len(names), names if named else None)


def labels_of(shown):
    return shown.batch(np.arange(shown.num_examples))["label"].tolist()


def test_a_source_of_just_these_classes_is_left_as_it_is():
    own = source("a", "b")
    assert classes.in_order_of(own, known("a", "b"), "m") is own


@pytest.mark.parametrize(
    ("names", "model", "labels"),
    [
        (("b", "a"), ("a", "b"), [1, 0]),
        (("c", "a", "b"), ("a", "b", "c"), [2, 0, 1]),
        (("b", "c"), ("a", "b", "c"), [1, 2]),
        (("c", "b"), ("a", "b", "c"), [2, 1]),
    ],
)
def test_equal_names_are_one_class_whatever_their_number(names, model, labels):
    shown = classes.in_order_of(source(*names), known(*model), "m")
    assert labels_of(shown) == labels
    assert (shown.num_classes, shown.class_names) == (len(model), model)
    assert shown.batch(np.arange(1))["label"].dtype == np.int32
    # The images stay where they are.
    assert shown.batch(np.arange(2))["image"][:, 0, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("named", "model"), [(False, known("a", "b", "c")), (False, Classes(3))])
def test_without_names_labels_keep_their_numbers_and_may_be_fewer(named, model):
    shown = classes.in_order_of(source("x", "y", named=named), model, "m")
    assert labels_of(shown) == [0, 1]
    assert classes.of_source(shown) == model


@pytest.mark.parametrize(
    ("own", "model", "message"),
    [
        (source("a", "d"), known("a", "b"), r"^s: classes differ: 'd' only here, 'b' only in m$"),
        (source("a", "b", "d"), known("a", "b"), r"^s: classes differ: 'd' only here$"),
        (source(*"efghi"), known("a"), "'e', 'f', 'g' and 2 more only here, 'a' only in m"),
        (source("a", "b", "c", named=False), known("a", "b"), "^s: 3 classes here, 2 in m$"),
        (source("a", "b", "c", named=False), Classes(2), "^s: 3 classes here, 2 in m$"),
        # Which of the model's three they are cannot be told.
        (source("a", "b"), Classes(3), "^s: 2 classes here, 3 in m$"),
        (source("a", "b", "a"), known("b", "a", "a"), "'a' comes twice"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_its_first_classes(own, model, message):
    with pytest.raises(DataError, match=message):
        classes.in_order_of(own, model, "m")


def test_names_that_come_twice_are_no_trouble_in_one_order():
    own = source("a", "b", "a")
    assert classes.in_order_of(own, known("a", "b", "a"), "m") is own


def test_a_part_of_a_source_and_its_ids_are_kept():
    part = Subset(source("b", "a", labels=[0, 1, 0, 1]), np.array([1, 2]))
    shown = classes.in_order_of(part, known("a", "b"), "m")
    batch = shown.batch(np.arange(2))
    assert (batch["id"].tolist(), batch["label"].tolist()) == ([1, 2], [0, 1])


def test_noise_after_mapping_redraws_the_same_meanings_whatever_the_sources_order():
    truth = np.arange(300) % 3
    model = known("a", "b", "c")
    renamed = source("c", "a", "b", labels=(truth + 1) % 3)
    noisy = [
        noise.with_label_noise(classes.in_order_of(own, model, "m"), 0.5, seed=1)
        for own in (source("a", "b", "c", labels=truth), renamed)
    ]
    first, second = (each.batch(np.arange(300)) for each in noisy)
    assert first["label"].tolist() == second["label"].tolist()
    assert first["clean_label"].tolist() == second["clean_label"].tolist() == truth.tolist()
    # From all classes of the model, also those that the source lacks.
    lacking = classes.in_order_of(source("b", "a", labels=truth % 2), model, "m")
    redrawn = noise.with_label_noise(lacking, 1.0, seed=1).batch(np.arange(300))["label"]
    assert set(redrawn.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (known("a", "b"), known("b", "a"), True),
        (known("a", "b"), known("a", "c"), False),
        (known("a", "a"), known("a", "b"), False),
        (known("a", "b"), Classes(2), True),
        (Classes(3), known("a", "b"), False),
    ],
)
def test_the_same_classes_in_whatever_order(a, b, same):
    assert classes.same(a, b) is classes.same(b, a) is same


@pytest.mark.parametrize(
    ("own", "model", "said"),
    [
        (known("a"), known("b"), ""),
        (Classes(1), Classes(1), ""),
        (Classes(1), known("a"), "s has no class names: its labels are taken by number for the classes of m"),
        (known("a"), Classes(1), "m has no class names: labels of s are taken by number"),
        (known("a"), known("a", "b"), "s has 1 of the 2 classes of m"),
        (Classes(1), Classes(2), "s has 1 of the 2 classes of m"),
    ],
)
def test_what_a_user_must_know_is_said(own, model, said):
    assert classes.remark(own, model, "s", "m") == said


@pytest.mark.parametrize("own", [known("a", "b"), Classes(4), known("\udcff", "é")])
def test_classes_come_back_from_json(own):
    assert Classes.from_json(json.loads(json.dumps(own.as_json()))) == own


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, {"num_classes": 0}, {"num_classes": True}, {"num_classes": "3"},
        {"num_classes": 2, "class_names": ["a"]}, {"num_classes": 1, "class_names": "a"},
    ],
)  # fmt: skip
def test_what_says_nothing_of_classes_is_none(value):
    assert Classes.from_json(value) is None


def test_what_older_versions_recorded_is_their_number():
    assert Classes.from_json({"num_classes": 3, "vocab_size": 0}) == Classes(3)


def test_a_name_that_is_no_utf8_is_shown_as_bytes():
    ours, theirs = Classes(1, ("caf\udce9",)), Classes(1, ("bee",))
    found = classes.difference(ours, "here", theirs, "there")
    assert found == "classes differ: 'caf\\xe9' only here, 'bee' only there"
