"""What was trained on is counted exactly, and over interruptions."""

import json
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.nodes import selected


def batch(ids, labels=None, true_labels=None):
    of = lambda values: None if values is None else np.array(values)  # noqa: E731
    return types.SimpleNamespace(ids=np.array(ids, np.int64), labels=of(labels), true_labels=of(true_labels))


IDS = st.lists(st.lists(st.integers(0, 40_000), min_size=1, max_size=8), min_size=1, max_size=8)


@given(IDS)
@settings(max_examples=100, deadline=None)
def test_repeats_are_those_of_a_plain_set(batches):
    seen, known = selected.Seen(), set()
    for ids in batches:
        repeated = 0
        for one in ids:
            repeated += one in known
            known.add(one)
        assert seen.add(np.array(ids)) == pytest.approx(repeated / len(ids))
        assert seen.count == len(known)


@pytest.mark.parametrize("outside", [-1, 2**30, 2**40])
def test_ids_out_of_range_end_the_counting(outside):
    seen = selected.Seen()
    assert seen.add(np.array([1, 2])) == 0.0
    assert seen.add(np.array([outside, 2])) is None
    assert seen.add(np.array([1, 2])) is None
    assert seen.count is None


def written(tmp_path, name="icons"):
    return json.loads((tmp_path / "selected" / f"{name}.json").read_text())


def test_a_run_that_is_resumed_counts_on(tmp_path):
    names = {"icons": ("a", "b", "c"), "icons.more": None}
    first = selected.Selected(tmp_path, names)
    assert first.add({"icons": batch([1, 2, 3], [0, 0, 1], [0, 1, 1]), "icons.more": batch([9])}) == {
        "icons": 0.0,
        "icons.more": 0.0,
    }
    saved = first.state()
    # What is done after it was saved is undone by the resumption.
    first.add({"icons": batch([4, 5, 6], [2, 2, 2])})
    second = selected.Selected(tmp_path, names, saved)
    assert second.add({"icons": batch([3, 4], [2, 0], [1, 1])}) == {"icons": 0.5}
    second.write(7)
    assert written(tmp_path) == {
        "step": 7,
        "examples": 5,
        "distinct": 4,
        "classes": ["a", "b", "c"],
        "labels": [3, 1, 1],
        "true_labels": [1, 4],
    }
    assert written(tmp_path, "icons.more") == {
        "step": 7,
        "examples": 1,
        "distinct": 1,
        "classes": None,
        "labels": None,
        "true_labels": None,
    }


def test_what_an_older_version_did_not_count_is_not_guessed(tmp_path):
    resumed = selected.Selected(tmp_path, {"icons": None}, {})
    assert resumed.add({"icons": batch([1, 1])}) == {}
    resumed.write(3)
    assert written(tmp_path)["distinct"] is None
    again = selected.Selected(tmp_path, {"icons": None}, resumed.state())
    assert again.add({"icons": batch([1, 1])}) == {}
