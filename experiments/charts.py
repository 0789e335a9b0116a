"""The report's charts, as SVG to be put inside a page.

Text stays text, in the page's own font; colours are told apart by colour-blind
readers (the Okabe-Ito palette); the baseline is black.
"""

import html
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from classact.experiments import bands, comparison, curves
from classact.experiments.comparison import Comparison
from classact.experiments.curves import Curve
from classact.experiments.groups import Group, Row

_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6a51a3", "#8c6d31")
_BASELINE_COLOUR = "#222222"
_GREY = "#5f6b76"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": _GREY,
    "axes.titlecolor": "#1f2933",
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
# Inches, at 72 px each: as wide as a phone, so that its text is not scaled down there.
_WIDTH, _HEIGHT = 5.4, 3.7
# Characters of a title that fit in a line, and of a bar's label beside one.
_TITLE, _LABEL = 44, 20
# Up to this share of a run, its curve may lie below the range that is shown.
_LEFT_BELOW = 0.25

# Names that do not speak for themselves.
_WRITTEN_OUT = {
    r"^i2t_r(?=[0-9])": "image-to-text recall@",
    r"^t2i_r(?=[0-9])": "text-to-image recall@",
    r"^zero_shot_top(?=[0-9])": "zero-shot top-",
}

LEDGER_PARTS = {
    "learner_training_macs": ("learner training", "#4c78a8"),
    "scoring_macs": ("scoring", "#f2a541"),
    "online_training_macs": ("online model training", "#72b7b2"),
    "reference_training_macs": ("reference training in the run", "#b279a2"),
    "reference_pretraining_macs": ("reference pretraining", "#d8b5a5"),
}


def colours(groups: Sequence[Group]) -> dict[str, str]:
    """A colour for each group's label."""
    others = iter(range(len(groups)))
    return {
        group.label: _BASELINE_COLOUR if group.is_baseline else _PALETTE[next(others) % len(_PALETTE)]
        for group in groups
    }


def metric_against_updates(compared: Comparison) -> Optional[str]:
    """Smoothed learning curves with each baseline's final value and where it was reached.

    Returns:
        An `<svg>` element, or None if no run has an evaluation.
    """
    groups, metric = compared.groups, compared.metric
    figure, axes = _axes(_title(metric, "against learner updates"), "learner updates")
    drawn = _draw_groups(axes, groups, lambda row: row.run.curve)
    if not drawn:
        return None
    _finish_curves(axes, compared, drawn)
    _draw_crossings(axes, groups, "updates")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return _svg(figure, f"{metric} against learner updates")


def metric_against_macs(compared: Comparison) -> Optional[str]:
    """The same curves against everything spent, the reference's pretraining as an offset.

    Returns:
        An `<svg>` element, or None if no run has both evaluations and a ledger.
    """
    groups, metric = compared.groups, compared.metric
    spent = [comparison.macs_at(row.run, row.run.steps) for group in groups for row in group.rows]
    largest = max((macs for macs in spent if macs is not None), default=0.0)
    factor, unit = si_scale(largest)
    figure, axes = _axes(
        _title(metric, "against total compute"), f"{unit}MACs, scoring and all training included"
    )

    def curve(row: Row) -> Curve:
        points = [(comparison.macs_at(row.run, step), value) for step, value in row.run.curve]
        return [(macs, value) for macs, value in points if macs is not None]

    drawn = _draw_groups(axes, groups, curve)
    if not drawn:
        return None
    _finish_curves(axes, compared, drawn)
    _draw_crossings(axes, groups, "macs")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / factor:,.4g}"))
    return _svg(figure, f"{metric} against total compute")


def corrupted_against_updates(compared: Comparison) -> Optional[str]:
    """The share of corrupted labels or captions in what the learner was trained on.

    Returns:
        An `<svg>` element, or None where the corruption is not known.
    """
    figure, axes = _axes(f"Wrong {compared.targets} among the examples trained on", "learner updates")
    drawn = _draw_groups(
        axes, compared.groups, lambda row: row.run.learner_curve("selection/corrupted_fraction")
    )
    if not drawn:
        return None
    axes.set_ylim(bottom=0.0)
    _percent_axis(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    description = f"share of wrong {compared.targets} among the examples trained on, against learner updates"
    return _svg(figure, description)


def compute_bars(compared: Comparison, what: str = "") -> Optional[str]:
    """What reaching the baseline's final value was spent on, a bar for each group that did.

    Args:
        compared: the runs.
        what: what to call that value, by default accuracy or recall.

    Returns:
        An `<svg>` element, or None if no group reached it with a ledger.
    """
    bars = [(group, parts) for group in compared.groups if (parts := _parts_until_target(group))]
    if not bars:
        return None
    factor, unit = si_scale(max(sum(parts.values()) for _, parts in bars))
    title = f"Compute to reach the baseline's {what or compared.measure}"
    labels = [textwrap.fill(group.label, _LABEL) for group, _ in bars]
    each = max(0.42, 0.2 * max(label.count("\n") + 1 for label in labels))
    heading = title if len(title) <= 2 * _LABEL else title.replace("baseline's ", "baseline's\n")
    figure, axes = _axes(heading, f"{unit}MACs", 1.3 + 0.2 * heading.count("\n") + each * len(bars))
    positions = np.arange(len(bars))
    left = np.zeros(len(bars))
    for name, (_, colour) in LEDGER_PARTS.items():
        widths = np.array([parts[name] / factor for _, parts in bars])
        axes.barh(positions, widths, left=left, height=0.62, color=colour)
        left += widths
    axes.set_yticks(positions, labels, color="#1f2933")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return _svg(figure, f"{title}, by what it was spent on")


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


def _draw_groups(axes: Axes, groups: Sequence[Group], curve: Callable[[Row], Curve]) -> list[np.ndarray]:
    """Draws a mean curve and a band for each group; other runs of it thin and dashed.

    Returns:
        The points drawn, float64[N, 2] for each line.
    """
    palette, drawn = colours(groups), []
    for group in reversed(groups):
        colour = palette[group.label]
        counted = [smoothed for row in group.counted if (smoothed := curves.smooth(curve(row)))]
        if counted:
            band = bands.aggregate(counted)
            if len(counted) > 1:
                axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(band.steps, band.mean, color=colour, linewidth=2.0)
            drawn.append(np.stack([band.steps, band.mean], axis=1))
        for row in group.rows:
            if row not in group.counted and curve(row):
                line = np.array(curves.smooth(curve(row)))
                axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=1.0, linestyle="--")
                drawn.append(line)
    return [line for line in drawn if len(line)]


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
            axes.axhline(target, color=_BASELINE_COLOUR, linewidth=0.8, linestyle=(0, (4, 3)))
    _percent_axis(axes)


def _draw_crossings(axes: Axes, groups: Sequence[Group], column: str) -> None:
    """Marks where each group reached its target."""
    palette = colours(groups)
    for group in groups:
        reached, target = group.mean(column), group.mean("target")
        if reached is not None and target is not None:
            axes.plot(
                [reached], [target], "o", color=palette[group.label], markersize=6, markeredgecolor="white"
            )


def _title(metric: str, against: str) -> str:
    """A chart's title, in two lines if need be."""
    title = f"{short_name(metric)} {against}"
    return title if len(title) <= _TITLE else f"{short_name(metric)}\n{against}"


def _percent_axis(axes: Axes) -> None:
    """Labels the y axis in per cent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def _axes(title: str, label: str, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    """Makes a chart; a `Figure` of its own leaves pyplot's global state alone."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, pad=12)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _svg(figure: Figure, description: str) -> str:
    """Renders a chart as an `<svg>` element that takes the width it is given."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # No metadata, no style that would reach the page around the picture, the
    # page's own font, and no element ids that two charts would share.
    text = re.sub(r"\s*<metadata>.*?</metadata>|\s*<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    view_box = re.search(r'viewBox="[^"]*"', text)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{html.escape(description)}" {view_box.group() if view_box else ""}>'
    )
    return opening + text[text.index(">") + 1 :]
