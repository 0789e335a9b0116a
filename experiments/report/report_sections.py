"""Sections of the report's page: what the seeds show, speed-ups, what was selected, classes."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group
from classact.experiments.compare.targets import Target
from classact.experiments.report import charts as charts_lib
from classact.experiments.report import drawing, summary, table
from classact.experiments.report.drawing import Chart
from classact.experiments.report.drawn import OfMetric

_ABOUT_SEEDS = f"""<p class="small">± is the standard deviation over the seeds. A difference is the mean,
over the seeds, of a run minus the baseline run of its own seed, with the 95 % confidence interval by
Student's t and p of the paired t test; {summary.STAR} only where p &lt; 0.01. A run that did not reach
the target is not left out: then only the difference of the final values has an interval.</p>"""
_ABOUT_CHANCE = """<p class="small">“Two runs of one law” is what pairs of runs that differ in nothing
but chance would show as fewer updates, in 95 of 100 cases, by a simulation of the baseline's own curve,
the scatter of its evaluations, and how much whole runs differ: as the seeds on this page say, or
(“about”) by experience with other runs, two and a half times as much as single evaluations. A gain within
it is not called one: run other seeds.</p>"""
ABOUT_SPEEDUPS = """<p class="small">At each target a run is held against when the baseline itself first
got there. “&lt;” is a run that did not: it has saved less; “&gt;” a baseline that did not. In the chart
of actor cost an update of a group above the dashed line pays for its own scoring, the training of the
online model and the reference aside; the grey line joins the groups that no other beats at less cost. A
hollow point shows no gain beyond chance.</p>"""
_ABOUT_SELECTION = """<p class="small">Already learned: what the learner, in the forward pass of the update
itself, predicts as it is labelled. Trained on before: by example, in this run. Scores: bands from the 1st
to the 99th percentile, the 5th to the 95th, the 10th to the 90th and the 25th to the 75th, the line is
the median; of all that was scored since the point before, by the model of that moment.</p>"""
_THEMED = {
    **{colour: f"--c{i}" for i, colour in enumerate(drawing.PALETTE)},
    drawing.BASELINE_COLOUR: "--baseline",
    drawing.GREY: "--grey",
    drawing.INK: "--ink",
    drawing.LINE: "--line",
    drawing.SPINE: "--spine",
}


def variable(colour: str) -> str:
    """A colour of the charts as the page's own, which is another one in the dark."""
    return f"var({_THEMED[colour]}, {colour})" if colour in _THEMED else colour


def themed(chart: Chart) -> str:
    """A chart as an `<svg>` element in the page's colours."""
    svg = re.sub(r"#[0-9a-f]{6}", lambda found: variable(found[0]), chart.svg)
    # The rims of points, and the inside of hollow ones.
    return svg.replace("#ffffff", "var(--page, #ffffff)")


def legend(colours: Mapping[str, str], kind: str = "") -> str:
    """Names beside their colours."""
    items = "".join(
        f'<span style="--colour: {variable(colour)}"><i></i>{html.escape(name)}</span>'
        for name, colour in colours.items()
    )
    return f'<div class="legend {kind}">{items}</div>'


def charts(groups: Sequence[Group], each: Sequence[Optional[str]]) -> str:
    """The charts that there are, below what their colours mean."""
    drawn = "".join(f"<div>{chart}</div>" for chart in each if chart)
    return f'{legend(drawing.colours(groups))}\n<div class="charts">{drawn}</div>' if drawn else ""


def seeds(compared: Comparison, level: str = "h2", explained: bool = True) -> str:
    """What the seeds show together, where there are several, or what chance alone would.

    Args:
        compared: the runs.
        level: of the heading.
        explained: whether `about_seeds` comes below it.
    """
    groups = [group for group in compared.groups if not group.is_baseline]
    several = any(len(group.counted) > 1 for group in groups)
    chance = any(row.chance is not None for group in groups for row in group.counted)
    if not several and not chance:
        return ""
    words = table.words(compared)
    rows = [[line.label, *line.cells] for line in summary.lines(compared)]
    title = "What the seeds show" if several else "How sure that is"
    shown = _table([header.format(**words) for header in summary.HEADERS], rows, "wrapped")
    about = about_seeds(compared) if explained else ""
    return f"<{level}>{title}</{level}>\n{shown}\n{about}"


def about_seeds(compared: Comparison) -> str:
    """How the figures of `seeds` are made."""
    several = any(len(group.counted) > 1 for group in compared.groups)
    single = any(len(group.counted) == 1 for group in compared.groups if not group.is_baseline)
    return (_ABOUT_SEEDS if several else "") + (_ABOUT_CHANCE if single else "")


def targets(compared: Comparison) -> str:
    """Fewer updates at each target, as a table; empty if nobody is held against a baseline."""
    rows = []
    for group in compared.groups:
        if group.is_baseline or not any(row.at_targets for row in group.counted):
            continue
        cells = [_at(group, place) for place in range(len(compared.targets_tried))]
        rows.append([group.label, *cells])
    if not rows:
        return ""
    heads = [_target_in_words(target, compared) for target in compared.targets_tried]
    return _table(["fewer updates to", *heads], rows)


def speedups(compared: Comparison, own: OfMetric) -> str:
    """Speed-up at several targets, and beside what it costs."""
    drawn = charts(compared.groups, [themed(chart) for chart in own.speedups])
    tabled = targets(compared)
    if not drawn and not tabled:
        return ""
    return f"<h2>Speed-up, at several targets and for its price</h2>\n{drawn}\n{tabled}\n{ABOUT_SPEEDUPS}"


def selection(compared: Comparison, drawn: Sequence[Chart]) -> str:
    """What was trained on, and how it was scored."""
    shown = charts(compared.groups, [themed(chart) for chart in drawn])
    return f"<h2>What was trained on</h2>\n{shown}\n{_ABOUT_SELECTION}" if shown else ""


def classes(compared: Comparison, own: OfMetric, named: bool) -> str:
    """How well each class is learned; `named`: says by which metric."""
    shown = charts(compared.groups, [themed(chart) for chart in own.classes])
    if not shown:
        return ""
    metric = f" <small>{html.escape(charts_lib.long_name(compared.metric))}</small>" if named else ""
    rows = [[item.label, item.name, item.worst, item.worst_tenth, item.all_classes] for item in own.worst]
    heads = ["policy", "worst class", "its accuracy", "worst tenth of the classes", "mean of the classes"]
    about = '<p class="small">At the last evaluation, on average over the seeds.</p>'
    return f"<h2>Classes{metric}</h2>\n{shown}\n{_table(heads, rows)}\n{about}"


def _at(group: Group, place: int) -> str:
    """A group's mean share of updates that were not needed for a target, or its bound."""
    each = [row.at_targets[place] if row.at_targets else None for row in group.counted]
    known = [item for item in each if item is not None and item.fewer is not None]
    bounds = {item.bound for item in known} - {""}
    if not known or len(known) < len(each) or len(bounds) > 1 or group.diverged:
        return table.NONE
    mean = sum(item.fewer or 0.0 for item in known) / len(known)
    return f"{''.join(bounds)} {table.percent(mean)}".strip()


def _target_in_words(target: Target, compared: Comparison) -> str:
    if target.value is not None:
        return f"{compared.measure} {table.percent(target.value)}"
    return "its final value" if target.share == 1.0 else f"{100 * (target.share or 0.0):g} % of it"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table whose cells are escaped here."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="table"><table class="{kind}">{content}</table></div>'
