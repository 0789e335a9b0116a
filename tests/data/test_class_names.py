import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data.class_names import GivenClasses, classes_option, numbered
from classact.data.source import DataError

NAMES = GivenClasses(3, ("cow", "ant", "bee"), "names.txt")


@given(st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "ab"])), min_size=1).filter(any))
def test_texts_are_numbered_by_their_order(values):
    labels = numbered(values, "x")
    assert labels.names == tuple(sorted({value for value in values if value is not None}))
    assert [None if n < 0 else labels.names[n] for n in labels.numbers] == values
    assert labels.num_classes == len(labels.names)


@given(st.lists(st.integers(-1, 4), min_size=5).filter(lambda values: max(values) >= 0))
def test_numbers_stay_and_the_greatest_says_how_many(values):
    labels = numbered(values, "x")
    assert labels.numbers.tolist() == values and labels.numbers.dtype == np.int32
    assert labels.num_classes == max(values) + 1 and labels.names is None


def test_given_names_say_what_texts_and_numbers_mean():
    assert numbered(["ant", None, "cow"], "x", NAMES).numbers.tolist() == [1, -1, 0]
    assert numbered([2, 0.0, float("nan"), True], "x", NAMES)[1:] == (3, NAMES.names)
    assert numbered([2, 0.0, float("nan"), True], "x", NAMES).numbers.tolist() == [2, 0, -1, 1]
    assert numbered([1, 0], "x", None, ["a", "b"]).names == ("a", "b")
    assert numbered([1, 0], "x", NAMES, ["a", "b"]).names == NAMES.names


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([0, 1, 3], NAMES, r"x: row 2 has the label 3, expected 0 to 2 of names.txt .1 such rows"),
        ([0, -2], None, r"row 1 has the label -2, expected 0 to 0"),
        ([0, 9], None, r"row 1 has the label 9, more than there are examples; .*\?classes=NUMBER"),
        (["ant", "dog"], NAMES, r"row 1 has the label 'dog', .* 3 classes of names.txt .cow, ant, bee"),
        (["a", "b"], GivenClasses(3, None, "classes=3"), "2 different labels, but classes=3"),
        (["a", 1], None, r"row 0 has the label 'a' .str., expected whole numbers, or names, in all rows"),
        ([0, 1.5], None, r"row 1 has the label 1.5 .float."),
        ([None], None, "no example has a label"),
        ([-1], None, "no example has a label"),
    ],
)
def test_other_labels_are_refused(values, classes, message):
    with pytest.raises(DataError, match=message):
        numbered(values, "x", classes)


def test_classes_are_a_number_or_a_file_of_names(tmp_path):
    assert classes_option("csv", None) is None
    assert classes_option("csv", "12") == (12, None, "classes=12")
    for name, text in (
        ("a.txt", "cow\nant \nbee\n\n"), ("a.json", '["cow", "ant", "bee"]'),
        ("b.json", json.dumps({"1": "ant", "0": "cow", "2": "bee"})),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        assert classes_option("csv", str(tmp_path / name))[:2] == NAMES[:2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "it is empty; expected the name of a class on each line"),
        ("a.txt", b"ant\n\nbee\n", "line 2 is empty"),
        ("a.txt", b"ant\nant\n", "'ant' comes twice"),
        ("a.txt", b"\xff\xfe\x00", "it is no UTF-8"),
        ("a.json", b"[1]", "expected a list of class names"),
        ("a.json", b'{"1": "ant"}', "by number from 0"),
        ("a.json", b"[", "no JSON"),
    ],
)
def test_files_that_are_no_names_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        DataError, match=rf"{name}: .*{message}|{name}: {message}|{name}: the class name {message}"
    ):
        classes_option("csv", str(tmp_path / name))
    with pytest.raises(
        DataError, match=r"classes=none.txt: cannot be read .No such file.*the number of classes"
    ):
        classes_option("csv", "none.txt")
