import re
import xml.etree.ElementTree as ElementTree

import pytest

from classact.experiments import comparison, figures


def texts(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def lines_of_colour(svg, colour):
    """The lines of a colour, as lists of (x, y) in the picture."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: {colour}; stroke-width: 2', svg)
    return [[tuple(map(float, point)) for point in re.findall(r"[ML] (\S+) (\S+)", path)] for path in paths]


@pytest.fixture
def groups(make_run):
    runs = [make_run("u")]
    runs += [
        make_run(f"c{s}", seed=s, policy="classact", speed=1.25, corrupted=(0.1, 0.2), noise=0.01)
        for s in (0, 1)
    ]
    return comparison.compare(runs).groups


def test_curves_against_updates(groups):
    svg = figures.accuracy_against_updates(groups, "eval/test/top1")
    assert {"top-1 on test against learner updates", "1,500", "learner updates"} <= set(texts(svg))
    colours = figures.colours(groups)
    (uniform,), (classact,) = (lines_of_colour(svg, colours[group.label]) for group in groups)
    assert len(uniform) == len(classact) == 30
    # Pixels grow downwards: the faster policy's curve is above.
    assert all(above[1] < below[1] for above, below in zip(classact[1:], uniform[1:], strict=True))


def test_curves_against_compute_begin_with_the_pretraining(groups):
    svg = figures.accuracy_against_macs(groups, "eval/test/top1")
    assert "GMACs, scoring and all training included" in texts(svg)
    colours = figures.colours(groups)
    (uniform,), (classact,) = (lines_of_colour(svg, colours[group.label]) for group in groups)
    assert classact[0][0] > uniform[0][0]
    assert classact[-1][0] > uniform[-1][0]


def test_bars_are_as_long_as_the_compute_until_the_target(groups):
    svg = figures.compute_bars(groups)
    assert {"uniform", "classact"} <= set(texts(svg))

    def widths(name):
        found = re.findall(
            rf'<path d="M (\S+) \S+ \nL (\S+) [^"]*"[^>]*style="fill: {figures.LEDGER_PARTS[name][1]}', svg
        )
        return [float(right) - float(left) for left, right in found]

    uniform, classact = widths("learner_training_macs")
    assert classact / uniform == pytest.approx(groups[1].mean("updates") / 1500, rel=0.01)
    (_, pretraining), (_, scoring) = widths("reference_pretraining_macs"), widths("scoring_macs")
    row = groups[1].rows[0].run
    expected = 2e10 / (row.ledger["scoring_macs"] * groups[1].mean("updates") / 1500)
    assert pretraining / scoring == pytest.approx(expected, rel=0.02)


def test_the_share_of_wrong_labels(groups):
    assert "Wrong labels among the examples trained on" in texts(figures.corrupted_against_updates(groups))


def test_no_chart_without_data(make_run):
    groups = comparison.compare([make_run("u", status=None, done=0)]).groups
    assert figures.accuracy_against_updates(groups, "eval/test/top1") is None
    assert figures.accuracy_against_macs(groups, "eval/test/top1") is None
    assert figures.corrupted_against_updates(groups) is None
    assert figures.compute_bars(groups) is None


def test_a_run_without_a_ledger_has_no_curve_against_compute(make_run):
    groups = comparison.compare([make_run("u", status=None)]).groups
    assert figures.accuracy_against_updates(groups, "eval/test/top1") is not None
    assert figures.accuracy_against_macs(groups, "eval/test/top1") is None


def test_one_evaluation_is_enough(make_run):
    groups = comparison.compare([make_run("u", done=50), make_run("c", policy="classact", done=50)]).groups
    for svg in (
        figures.accuracy_against_updates(groups, "eval/test/top1"),
        figures.accuracy_against_macs(groups, "eval/test/top1"),
    ):
        ElementTree.fromstring(svg)


def test_colours_are_different_and_the_baseline_is_dark(groups):
    colours = figures.colours(groups)
    assert colours["uniform"] == "#222222"
    assert len(set(colours.values())) == 2


def test_charts_share_no_element_ids(groups):
    charts = [
        figures.accuracy_against_updates(groups, "eval/test/top1"),
        figures.corrupted_against_updates(groups),
    ]
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in charts]
    assert not ids[0] & ids[1]
    for svg, own in zip(charts, ids, strict=True):
        assert set(re.findall(r"url\(#([^)]*)\)", svg)) <= own


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, (1.0, "")), (999.0, (1.0, "")), (2e9, (1e9, "G")), (5e19, (1e18, "E"))]
)
def test_si_scale(value, expected):
    assert figures.si_scale(value) == expected


def test_short_name():
    assert figures.short_name("eval/test/top1") == "top-1 on test"
    assert figures.short_name("eval/clean/i2t_r1") == "i2t_r1 on clean"
