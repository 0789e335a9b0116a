"""The report's charts of what runs reach, and of what that takes."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from classact.experiments import curves
from classact.experiments.compare import bands, comparison, running_time
from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group, Row
from classact.experiments.curves import Curve, Run
from classact.experiments.report.drawing import (
    BASELINE_COLOUR,
    INK,
    Chart,
    colours,
    file_name,
    new_axes,
    percent_axis,
)

# Characters of a title that fit in a line, and of a bar's label beside one.
_TITLE, _LABEL = 44, 20
# Up to this share of a run, its curve may lie below the range that is shown.
_LEFT_BELOW = 0.25

_TIMES = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))

# Names that do not speak for themselves.
_WRITTEN_OUT = {
    r"^i2t_r(?=[0-9])": "image-to-text recall@",
    r"^t2i_r(?=[0-9])": "text-to-image recall@",
    r"^zero_shot_top(?=[0-9])": "zero-shot top-",
}

LEDGER_PARTS = {
    "learner_training_macs": ("learner training", "#4c78a8"),
    "scoring_macs": ("scoring", "#f2a541"),
    "joint_selection_macs": ("joint selection", "#e45756"),
    "online_training_macs": ("online model training", "#72b7b2"),
    "reference_training_macs": ("reference training in the run", "#b279a2"),
    "reference_pretraining_macs": ("reference pretraining", "#d8b5a5"),
}


def metric_against_updates(compared: Comparison) -> Optional[Chart]:
    """Smoothed learning curves with each baseline's final value and where it was reached.

    Returns:
        None if no run has an evaluation.
    """
    return _metric_against(
        compared, "learner updates", lambda run, step: step, "learner updates", lambda value: f"{value:,.0f}"
    )


def metric_against_macs(compared: Comparison) -> Optional[Chart]:
    """The same curves against everything spent, the reference's pretraining as an offset.

    Returns:
        None if no run has both evaluations and a ledger.
    """
    spent = [comparison.macs_at(row.run, row.run.steps) for group in compared.groups for row in group.rows]
    factor, unit = si_scale(max((macs for macs in spent if macs is not None), default=0.0))
    label = f"{unit}MACs, scoring and all training included"
    return _metric_against(
        compared, "total compute", comparison.macs_at, label, lambda value: f"{value / factor:,.4g}"
    )


def metric_against_seconds(compared: Comparison) -> Optional[Chart]:
    """The same curves against the time that the learner ran; see `running_time.seconds_at`.

    Returns:
        None if no run has both evaluations and times.
    """
    last = [
        running_time.seconds_at(row.run, row.run.steps) for group in compared.groups for row in group.rows
    ]
    longest = max((seconds for seconds in last if seconds is not None), default=0.0)
    factor, unit = next((each for each in _TIMES if longest >= 3 * each[0]), (1.0, "seconds"))

    def cost(run: Run, step: float) -> Optional[float]:
        seconds = running_time.seconds_at(run, step)
        return None if seconds is None else seconds / factor

    return _metric_against(
        compared, "running time", cost, f"{unit} of running", lambda value: f"{value:,.4g}"
    )


def _metric_against(
    compared: Comparison,
    what: str,
    cost: Callable[[Run, float], Optional[float]],
    label: str,
    show: Callable[[float], str],
) -> Optional[Chart]:
    """The metric against what a run had spent at a step; None if nothing is known of any run."""
    groups, metric = compared.groups, compared.metric
    figure, axes = new_axes(_title(metric, f"against {what}"), label)

    drawn = draw_groups(axes, groups, lambda row: row.run.curve, cost)
    if not drawn:
        return None
    _finish_curves(axes, compared, drawn)
    _draw_crossings(axes, groups, lambda row: None if row.updates is None else cost(row.run, row.updates))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    return Chart(file_name(short_name(metric), what), f"{metric} against {what}", figure)


def compute_bars(compared: Comparison, what: str = "") -> Optional[Chart]:
    """What reaching the baseline's final value was spent on, a bar for each group that did.

    Args:
        compared: the runs.
        what: what to call that value, by default accuracy or recall.

    Returns:
        None if no group reached it with a ledger.
    """
    bars = [(group, parts) for group in compared.groups if (parts := _parts_until_target(group))]
    if not bars:
        return None
    factor, unit = si_scale(max(sum(parts.values()) for _, parts in bars))
    title = f"Compute to reach the baseline's {what or compared.measure}"
    labels = [textwrap.fill(group.label, _LABEL) for group, _ in bars]
    each = max(0.42, 0.2 * max(label.count("\n") + 1 for label in labels))
    heading = title if len(title) <= 2 * _LABEL else title.replace("baseline's ", "baseline's\n")
    figure, axes = new_axes(heading, f"{unit}MACs", 1.3 + 0.2 * heading.count("\n") + each * len(bars))
    positions = np.arange(len(bars))
    left = np.zeros(len(bars))
    for name, (_, colour) in LEDGER_PARTS.items():
        widths = np.array([parts[name] / factor for _, parts in bars])
        axes.barh(positions, widths, left=left, height=0.62, color=colour)
        left += widths
    axes.set_yticks(positions, labels, color=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return Chart(file_name("compute", what), f"{title}, by what it was spent on", figure)


def si_scale(value: float) -> tuple[float, str]:
    """The power of 1,000 that a value is best shown in, and its SI prefix."""
    scales = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next(((factor, prefix) for factor, prefix in scales if abs(value) >= factor), (1.0, ""))


def short_name(metric: str) -> str:
    """`eval/test/top1` as `top-1 on test`."""
    _, evaluator, name = metric.split("/")
    return f"{re.sub(r'^top(?=[0-9])', 'top-', name)} on {evaluator}"


def long_name(metric: str) -> str:
    """`eval/retrieval/i2t_r1` as `image-to-text recall@1 on retrieval`."""
    return f"{_written_out(metric)} on {metric.split('/')[1]}"


def _written_out(metric: str) -> str:
    """What a metric measures: `image-to-text recall@1`."""
    name = short_name(metric).rpartition(" on ")[0]
    for short, long in _WRITTEN_OUT.items():
        name = re.sub(short, long, name)
    return name


def _parts_until_target(group: Group) -> Mapping[str, float]:
    """Mean MACs by what they were spent on until the target; empty if it was not reached."""
    if group.mean("macs") is None:
        return {}
    totals = dict.fromkeys(LEDGER_PARTS, 0.0)
    for row in group.counted:
        ledger = row.run.ledger
        total = ledger.get("total_macs", 0.0) - ledger.get("reference_pretraining_macs", 0.0)
        # Everything but the pretraining goes with the updates.
        share = (row.updates or 0.0) * ledger["macs_per_update"] / total if total else 0.0
        for name in totals:
            scale = 1.0 if name == "reference_pretraining_macs" else share
            totals[name] += scale * ledger.get(name, 0.0) / len(group.counted)
    return totals


def draw_groups(
    axes: Axes,
    groups: Sequence[Group],
    curve: Callable[[Row], Curve],
    cost: Callable[[Run, float], Optional[float]] = lambda run, step: step,
) -> list[np.ndarray]:
    """Draws a mean curve and a band for each group; other runs of it thin and dashed.

    Args:
        axes: where.
        groups: whose runs.
        curve: (step, value) of a run.
        cost: what a run had spent at a step, to draw it against; None where that is not known. Of
            several seeds it is the mean of what they had spent at the same step.

    Returns:
        The points drawn, float64[N, 2] for each line.
    """
    palette, drawn = colours(groups), []
    for group in reversed(groups):
        colour = palette[group.label]
        known = [row for row in group.rows if curve(row) and cost(row.run, curve(row)[0][0]) is not None]
        counted = [row for row in known if row in group.counted]
        for rows, style in ((counted, "-"), *(([row], "--") for row in known if row not in counted)):
            line, band = _line(rows, curve, cost)
            if band is None or not len(line):
                continue
            if len(rows) > 1:
                low, high = band.low[: len(line)], band.high[: len(line)]
                axes.fill_between(line[:, 0], low, high, color=colour, alpha=0.15, linewidth=0)
            width = 2.0 if style == "-" else 1.0
            axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=width, linestyle=style)
            drawn.append(line)
    return drawn


def _line(
    rows: Sequence[Row], curve: Callable[[Row], Curve], cost: Callable[[Run, float], Optional[float]]
) -> tuple[np.ndarray, Optional[bands.Band]]:
    """The mean curve of runs, float64[N, 2], up to where the cost of each is known, and their band."""
    if not rows:
        return np.empty((0, 2)), None
    band = bands.aggregate([curves.smooth(curve(row)) for row in rows])
    points = []
    for step, value in zip(band.steps, band.mean, strict=True):
        spent = [cost(row.run, float(step)) for row in rows]
        known = [each for each in spent if each is not None]
        if len(known) < len(rows):
            break
        points.append((sum(known) / len(known), value))
    return np.array(points).reshape(-1, 2), band


def _finish_curves(axes: Axes, compared: Comparison, drawn: Sequence[np.ndarray]) -> None:
    """Labels the y axis, sets its range and draws the targets."""
    if not short_name(compared.metric).startswith(name := _written_out(compared.metric)):
        axes.set_ylabel(name)
    # The first, steep part of the curves would take most of the height.
    low = min(line[line[:, 0] >= _LEFT_BELOW * line[-1, 0], 1].min() for line in drawn)
    high = max(line[:, 1].max() for line in drawn)
    # The recall among thousands of pairs may be below 1 %.
    margin = max(min(0.01, 0.05 * high), 0.06 * (high - low)) or 0.01
    axes.set_ylim(low - margin, high + margin)
    for group in compared.groups:
        target = group.mean("target")
        if group.is_baseline and target is not None:
            axes.axhline(target, color=BASELINE_COLOUR, linewidth=0.8, linestyle=(0, (4, 3)))
    percent_axis(axes)


def _draw_crossings(axes: Axes, groups: Sequence[Group], place: Callable[[Row], Optional[float]]) -> None:
    """Marks where each group reached its target, if all its runs did."""
    palette = colours(groups)
    for group in groups:
        places = [place(row) for row in group.counted]
        known = [value for value in places if value is not None]
        target = group.mean("target")
        if known and len(known) == len(places) and not group.diverged and target is not None:
            reached = sum(known) / len(known)
            axes.plot(
                [reached], [target], "o", color=palette[group.label], markersize=6, markeredgecolor="white"
            )


def _title(metric: str, against: str) -> str:
    """A chart's title, in two lines if need be."""
    title = f"{short_name(metric)} {against}"
    return title if len(title) <= _TITLE else f"{short_name(metric)}\n{against}"
