"""What runs record of scores and classes is read, and what is damaged is named."""

import json

import numpy as np
import pytest

from classact.experiments import recorded
from classact.experiments.curves import RunError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


TRAINED = {
    "step": 5,
    "examples": 10,
    "distinct": 8,
    "classes": ["a", "b\n", "c"],
    "labels": [4, 6],
    "true_labels": [5, 5],
}


def test_what_was_trained_on(tmp_path):
    assert recorded.trained_on(tmp_path) is None
    write(tmp_path / "selected" / "a_pairs.json", {**TRAINED, "labels": None, "true_labels": None})
    assert recorded.trained_on(tmp_path) is None
    write(tmp_path / "selected" / "icons.json", TRAINED)
    found = recorded.trained_on(tmp_path)
    assert (found.examples, found.distinct, found.by_truth) == (10, 8, True)
    assert found.names == ("a", "b\\n", "c")
    # A class that was never trained on has no count yet.
    np.testing.assert_array_equal(found.counts, [5, 5, 0])
    np.testing.assert_allclose(found.shares, [0.5, 0.5, 0.0])
    write(tmp_path / "selected" / "icons.json", {**TRAINED, "classes": None, "true_labels": None})
    found = recorded.trained_on(tmp_path)
    assert (found.names, found.by_truth) == (("class 0", "class 1"), False)


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", "", *({**TRAINED, "true_labels": bad} for bad in ([1, -1], "x", [])),
     {**TRAINED, "classes": []}, {**TRAINED, "examples": None}],
)  # fmt: skip
def test_a_damaged_file_of_what_was_trained_on(tmp_path, content):
    write(tmp_path / "selected" / "icons.json", content)
    with pytest.raises(RunError, match=r"icons\.json is damaged"):
        recorded.trained_on(tmp_path)


MEASURED = {"step": 5, "classes": None, "examples": [4, 0, 2], "correct": [1, 0, 2]}


def test_accuracies_of_classes(tmp_path):
    assert recorded.measured_classes(tmp_path, "test") is None
    write(tmp_path / "per_class" / "test.json", MEASURED)
    found = recorded.measured_classes(tmp_path, "test")
    np.testing.assert_array_equal(found.accuracy, [0.25, np.nan, 1.0])
    assert (found.step, found.names) == (5, ("class 0", "class 1", "class 2"))


@pytest.mark.parametrize(
    "changed",
    [{"correct": [1, 0]}, {"correct": [5, 0, 2]}, {"examples": [0, 0, 0], "correct": [0, 0, 0]},
     {"step": None}, {"classes": ["a", "b"]}, {"classes": ["a", "b", "c", "d"]}, {"examples": [1.5, 0, 2]}],
)  # fmt: skip
def test_a_damaged_file_of_classes(tmp_path, changed):
    write(tmp_path / "per_class" / "test.json", MEASURED | changed)
    with pytest.raises(RunError, match=r"test\.json is damaged"):
        recorded.measured_classes(tmp_path, "test")


def scored(step, median):
    return json.dumps({"step": step, **{f"score/p{p:02}": median + p for p in recorded.PERCENTILES}})


def test_scores_of_several_run_loops_are_one_curve(tmp_path):
    assert recorded.scores(tmp_path).shape == (0, 10)
    old = json.dumps({"step": 1, "score/p10": 0.0, "score/p90": 1.0})
    write(tmp_path / "metrics" / "run_loop-icons-0.jsonl", "\n".join([old, scored(3, 0.0), scored(9, 4.0)]))
    write(tmp_path / "metrics" / "run_loop-icons-1.jsonl", "\n".join([scored(3, 2.0), scored(5, 3.0)]))
    write(tmp_path / "metrics" / "run_loop-more-0.jsonl", scored(4, 100.0))
    found = recorded.scores(tmp_path)
    np.testing.assert_array_equal(found[:, 0], [3, 5, 9])
    np.testing.assert_array_equal(found[:, 5], [51, 53, 54])
