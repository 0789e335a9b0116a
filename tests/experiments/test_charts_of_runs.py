"""Charts of time, targets, costs, selection and classes: drawn from what there is, and right."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from classact.experiments import curves, recorded
from classact.experiments.compare import comparison, running_time
from classact.experiments.report import (
    charts,
    charts_of_classes,
    charts_of_selection,
    charts_of_targets,
    drawn,
)


def texts(chart):
    root = ElementTree.fromstring(chart.svg)
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def points(chart):
    """(x, y) of every line and point of the drawing, in its data's units."""
    return [np.array(line.get_xydata(), float) for line in chart.figure.axes[0].lines]


def write_recorded(run, labels, correct, scale=1.0, waits=0.0):
    """Adds to a run what newer ones record: classes, scores, repeats and times."""
    names = [f"c{i}" for i in range(len(labels))]
    counts = {"step": 1, "classes": names}
    (run / "selected").mkdir()
    (run / "selected" / "icons.json").write_text(
        json.dumps({**counts, "examples": sum(labels), "distinct": 7, "labels": labels, "true_labels": None})
    )
    (run / "per_class").mkdir()
    (run / "per_class" / "test.json").write_text(
        json.dumps({**counts, "examples": [10] * len(labels), "correct": correct})
    )
    quantiles = {f"score/p{p:02}": scale * p for p in recorded.PERCENTILES}
    lines = "".join(json.dumps({"step": step, **quantiles}) + "\n" for step in (50, 100, 150))
    (run / "metrics" / "run_loop-icons-0.jsonl").write_text(lines)
    path = run / "metrics" / "learner.jsonl"
    more = {"train/step_seconds": 5.0, "train/data_wait_seconds": waits, "selection/repeated_fraction": 0.25,
            "train/top1": 0.5}  # fmt: skip
    path.write_text(
        "".join(json.dumps(json.loads(line) | more) + "\n" for line in path.read_text().splitlines())
    )
    return run


@pytest.fixture
def runs(make_run):
    return [
        write_recorded(make_run("u"), [10, 10, 20], [1, 5, 10]),
        write_recorded(
            make_run("c", policy="classact", speed=1.5), [20, 10, 10], [5, 0, 10], scale=2.0, waits=5.0
        ),
    ]


@pytest.fixture
def compared(runs):
    return comparison.compare(runs)


def test_time_is_that_of_updates_and_waits(runs, compared):
    uniform, classact = (curves.load_run(path) for path in runs)
    # A record every 50 updates, of 5 and of 10 seconds; the clock says other things.
    assert running_time.seconds_at(uniform, 75) == pytest.approx(7.5)
    assert running_time.seconds_at(classact, 1500) == pytest.approx(300)
    assert running_time.seconds_at(classact, 1501) is None
    chart = charts.metric_against_seconds(compared)
    assert "minutes of running" in texts(chart)
    assert max(line[:, 0].max() for line in points(chart)) == pytest.approx(5.0)


def test_time_is_not_guessed(make_run):
    compared = comparison.compare([make_run("u")])
    assert running_time.seconds_at(compared.groups[0].rows[0].run, 50) is None
    assert charts.metric_against_seconds(compared) is None


def test_seeds_of_unlike_speed_are_one_curve(make_run):
    runs = [
        write_recorded(make_run(f"u{seed}", seed=seed), [1, 1], [1, 1], waits=waits)
        for seed, waits in ((0, 0.0), (1, 10.0))
    ]
    (line, *_) = points(charts.metric_against_seconds(comparison.compare(runs)))
    assert len(line) == 30
    # 150 and 450 seconds.
    assert line[-1, 0] == pytest.approx(5.0)


def test_speed_up_at_targets(compared):
    chart = charts_of_targets.speedup_at_targets(compared)
    (line, *_) = points(chart)
    np.testing.assert_allclose(line[:, 0], [0.5, 0.75, 0.9, 1.0])
    row = compared.groups[1].rows[0]
    np.testing.assert_allclose(line[:, 1], [item.fewer for item in row.at_targets])


def test_a_target_that_a_run_did_not_reach_is_not_drawn(make_run):
    slow = comparison.compare([make_run("u"), make_run("c", policy="classact", speed=0.8)])
    (line, *_) = points(charts_of_targets.speedup_at_targets(slow))
    np.testing.assert_allclose(line[:, 0], [0.5, 0.75])


def test_the_frontier_is_what_nobody_beats():
    found = charts_of_targets.frontier(
        [(0.0, 0.0), (0.5, 0.2), (0.3, 0.4), (0.3, 0.1), (0.9, 0.4), (1.0, 0.6)]
    )
    assert found == [(0.0, 0.0), (0.3, 0.4), (1.0, 0.6)]


def test_pareto(compared):
    chart = charts_of_targets.pareto(compared)
    ledger = compared.groups[1].rows[0].run.ledger
    cost = ledger["scoring_macs"] / ledger["learner_training_macs"]
    assert charts_of_targets.actor_cost(compared.groups[1]) == pytest.approx(cost)
    spots = [tuple(line[0]) for line in points(chart) if len(line) == 1]
    assert (cost, pytest.approx(compared.groups[1].mean("fewer_updates"))) in spots
    assert {"uniform", "classact"} <= set(texts(chart))


def test_shares_of_what_was_trained_on(compared):
    for chart, value in (
        (charts_of_selection.repeated_against_updates(compared), 0.25),
        (charts_of_selection.learned_against_updates(compared), 0.5),
    ):
        assert all(np.allclose(line[:, 1], value) for line in points(chart))


def test_scores_over_time(compared):
    chart = charts_of_selection.scores_over_time(compared, compared.groups[1])
    (median,) = points(chart)
    np.testing.assert_allclose(median, [[50, 100], [100, 100], [150, 100]])
    bands = chart.figure.axes[0].collections
    assert [band.get_datalim(chart.figure.axes[0].transData).height for band in bands] == pytest.approx(
        [2 * 98, 2 * 90, 2 * 80, 2 * 50]
    )


def test_shares_of_classes_are_multiples_of_the_baseline_s(compared):
    chart = charts_of_classes.shares_by_class(compared)
    (dots,) = [line for line in points(chart) if len(line) == 3]
    np.testing.assert_allclose(dots[:, 0], [10.5 / 20.5, 1.0, 20.5 / 10.5])
    assert [text for text in texts(chart) if text in ("c0", "c1", "c2")] == ["c2", "c1", "c0"]


def test_accuracies_of_classes(compared):
    found = charts_of_classes.accuracies(compared)
    np.testing.assert_allclose(found["classact"][1], [0.5, 0.0, 1.0])
    ranked = points(charts_of_classes.classes_by_rank(compared, found))
    np.testing.assert_allclose(ranked[0][:, 1], [0.0, 0.5, 1.0])
    named = charts_of_classes.accuracy_by_class(compared, found)
    assert {"c0", "c1", "c2"} <= set(texts(named))


def test_of_many_classes_those_at_the_ends_are_named(make_run):
    right = [5] * 100
    runs = [
        write_recorded(make_run("u"), [10] * 100, right),
        write_recorded(make_run("c", policy="classact"), list(range(100)), [0, *right[1:-1], 9]),
    ]
    compared = comparison.compare(runs)
    shares = texts(charts_of_classes.shares_by_class(compared))
    assert {"c0", "c9", "c90", "c99"} <= set(shares) and "c50" not in shares
    named = texts(charts_of_classes.accuracy_by_class(compared, charts_of_classes.accuracies(compared)))
    assert {"c0", "c99"} <= set(named) and "c50" not in named


def test_a_damaged_file_is_left_out_with_a_note(runs, compared, tmp_path):
    (runs[0] / "selected" / "icons.json").write_text("{")
    (runs[1] / "per_class" / "test.json").write_text("{")
    found = drawn.draw([compared])
    assert len(found.notes) == 2
    assert all("is damaged" in note for note in found.notes)
    assert found.metrics[0].classes == () and found.metrics[0].curves
    found.save(tmp_path / "a" / "charts")
    names = {path.name for path in (tmp_path / "a" / "charts").iterdir()}
    assert len(names) == 2 * len(list(found))
    assert {"top-1-on-test-learner-updates.svg", "top-1-on-test-pareto.png"} <= names


def test_the_worst_class_is_told(compared):
    uniform, classact = drawn.draw([compared]).metrics[0].worst
    assert (uniform.name, uniform.worst) == ("c0", "10.0\N{NO-BREAK SPACE}%")
    assert (classact.name, classact.worst, classact.all_classes[:4]) == (
        "c1",
        "0.0\N{NO-BREAK SPACE}%",
        "50.0",
    )
