import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import pytest

from classact.experiments.compare import comparison
from classact.experiments.report import charts, charts_of_selection, drawing


def texts(chart):
    root = ElementTree.fromstring(chart.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def lines_of_colour(chart, colour):
    """The lines of a colour, as lists of (x, y) in the picture."""
    paths = re.findall(
        rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: {colour}; stroke-width: 2', chart.svg
    )
    return [[tuple(map(float, point)) for point in re.findall(r"[ML] (\S+) (\S+)", path)] for path in paths]


@pytest.fixture
def compared(make_run):
    runs = [make_run("u")]
    runs += [
        make_run(f"c{s}", seed=s, policy="classact", speed=1.25, corrupted=(0.1, 0.2), noise=0.01)
        for s in (0, 1)
    ]
    return comparison.compare(runs)


@pytest.fixture
def groups(compared):
    return compared.groups


def test_curves_against_updates(compared, groups):
    svg = charts.metric_against_updates(compared)
    assert {"top-1 on test against learner updates", "1,500", "learner updates"} <= set(texts(svg))
    colours = drawing.colours(groups)
    (uniform,), (classact,) = (lines_of_colour(svg, colours[group.label]) for group in groups)
    assert len(uniform) == len(classact) == 30
    # Pixels grow downwards: the faster policy's curve is above.
    assert all(above[1] < below[1] for above, below in zip(classact[1:], uniform[1:], strict=True))


def test_curves_against_compute_begin_with_the_pretraining(compared, groups):
    svg = charts.metric_against_macs(compared)
    assert "GMACs, scoring and all training included" in texts(svg)
    colours = drawing.colours(groups)
    (uniform,), (classact,) = (lines_of_colour(svg, colours[group.label]) for group in groups)
    assert classact[0][0] > uniform[0][0]
    assert classact[-1][0] > uniform[-1][0]


def test_bars_are_as_long_as_the_compute_until_the_target(compared, groups):
    chart = charts.compute_bars(compared)
    assert {"uniform", "classact", "Compute to reach the baseline's accuracy"} <= set(texts(chart))

    def widths(name):
        found = re.findall(
            rf'<path d="M (\S+) \S+ \nL (\S+) [^"]*"[^>]*style="fill: {charts.LEDGER_PARTS[name][1]}',
            chart.svg,
        )
        return [float(right) - float(left) for left, right in found]

    uniform, classact = widths("learner_training_macs")
    assert classact / uniform == pytest.approx(groups[1].mean("updates") / 1500, rel=0.01)
    (_, pretraining), (_, scoring) = widths("reference_pretraining_macs"), widths("scoring_macs")
    row = groups[1].rows[0].run
    expected = 2e10 / (row.ledger["scoring_macs"] * groups[1].mean("updates") / 1500)
    assert pretraining / scoring == pytest.approx(expected, rel=0.02)


def test_the_share_of_wrong_labels(compared):
    assert "Wrong labels among the examples trained on" in texts(
        charts_of_selection.corrupted_against_updates(compared)
    )


def test_charts_of_image_text_runs_say_what_they_show(make_pairs_run):
    runs = [make_pairs_run("u", "uniform"), make_pairs_run("c", "active_clean", speed=1.5)]
    recall = comparison.compare(runs, metric="eval/retrieval/t2i_r1")
    for chart in (charts.metric_against_updates(recall), charts.metric_against_macs(recall)):
        assert any(text.startswith("t2i_r1 on retrieval against ") for text in texts(chart))
        assert not any(len(text) > 44 for text in texts(chart))
        assert "text-to-image recall@1" in texts(chart)
    assert "Compute to reach the baseline's recall" in texts(charts.compute_bars(recall))
    bars = texts(charts.compute_bars(recall, "zero_shot_top1 on icons_50"))
    assert {"Compute to reach the baseline's", "zero_shot_top1 on icons_50"} <= set(bars)
    zero_shot = comparison.compare(runs, metric="eval/icons_50/zero_shot_top1")
    long = texts(charts.metric_against_updates(zero_shot))
    assert {"zero_shot_top1 on icons_50", "against learner updates", "zero-shot top-1"} <= set(long)
    wrong = texts(charts_of_selection.corrupted_against_updates(recall))
    assert "Wrong captions among the examples trained on" in wrong


def test_low_recalls_fill_the_chart(make_pairs_run):
    run = make_pairs_run("u", "uniform", final=0.004)
    shown = texts(charts.metric_against_updates(comparison.compare([run], metric="eval/retrieval/i2t_r1")))
    ticks = [float(text.split()[0]) for text in shown if text.endswith(" %")]
    assert min(ticks) >= 0
    assert 0.1 <= max(ticks) < 0.2


def test_no_chart_without_data(make_run):
    compared = comparison.compare([make_run("u", status=None, done=0)])
    assert charts.metric_against_updates(compared) is None
    assert charts.metric_against_macs(compared) is None
    assert charts_of_selection.corrupted_against_updates(compared) is None
    assert charts.compute_bars(compared) is None


def test_a_run_without_a_ledger_has_no_curve_against_compute(make_run):
    compared = comparison.compare([make_run("u", status=None)])
    assert charts.metric_against_updates(compared) is not None
    assert charts.metric_against_macs(compared) is None


def test_one_evaluation_is_enough(make_run):
    compared = comparison.compare([make_run("u", done=50), make_run("c", policy="classact", done=50)])
    for svg in (charts.metric_against_updates(compared), charts.metric_against_macs(compared)):
        ElementTree.fromstring(svg.svg)


def test_colours_are_different_and_the_baseline_is_dark(groups):
    colours = drawing.colours(groups)
    assert colours["uniform"] == "#222222"
    assert len(set(colours.values())) == 2


def test_charts_share_no_element_ids(compared):
    drawn = [
        charts.metric_against_updates(compared),
        charts.metric_against_updates(dataclasses.replace(compared, metric="eval/test/top5")),
        charts.compute_bars(compared, "top-1"),
        charts.compute_bars(compared, "top-5"),
        charts_of_selection.corrupted_against_updates(compared),
    ]
    drawn = [chart.svg for chart in drawn]
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in drawn]
    assert len(set.union(*ids)) == sum(map(len, ids))
    for svg, own in zip(drawn, ids, strict=True):
        assert set(re.findall(r"url\(#([^)]*)\)", svg)) <= own


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, (1.0, "")), (999.0, (1.0, "")), (2e9, (1e9, "G")), (5e19, (1e18, "E"))]
)
def test_si_scale(value, expected):
    assert charts.si_scale(value) == expected


def test_names():
    assert charts.long_name("eval/test/top1") == "top-1 on test"
    assert charts.long_name("eval/clean/i2t_r10") == "image-to-text recall@10 on clean"
    assert charts.long_name("eval/icons_50/zero_shot_top1") == "zero-shot top-1 on icons_50"
    assert charts.short_name("eval/test/top1") == "top-1 on test"
    assert charts.short_name("eval/clean/i2t_r1") == "i2t_r1 on clean"
