"""Charts by class: how well each is learned, and how much of each was trained on."""

from collections.abc import Mapping
from typing import Optional

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from classact.experiments import recorded
from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group
from classact.experiments.report import charts
from classact.experiments.report.drawing import (
    BASELINE_COLOUR,
    INK,
    SPINE,
    Chart,
    colours,
    file_name,
    new_axes,
    percent_axis,
)

# Up to so many classes are drawn each by its name; of more, those at both ends.
NAMED = 20
_LONGEST_NAME = 18
_MULTIPLES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)


def accuracies(compared: Comparison) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Names and accuracies of the classes, by group; the mean over its counted runs.

    A group whose runs know other classes than its first, or none, is left out.

    Raises:
        RunError: if a file is damaged.
    """
    evaluator = compared.metric.split("/")[1]
    found = {}
    for group in compared.groups:
        each = [recorded.measured_classes(row.run.path, evaluator) for row in group.counted]
        known = [item for item in each if item is not None]
        if known and len({item.names for item in known}) == 1:
            found[group.label] = known[0].names, np.mean([item.accuracy for item in known], axis=0)
    return found


def classes_by_rank(
    compared: Comparison, found: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
) -> Optional[Chart]:
    """Each group's classes from the worst to the best, whichever they are; None if nobody knows any."""
    palette = colours(compared.groups)
    if not found:
        return None
    figure, axes = new_axes("Classes, from the worst to the best", "share of the classes")
    for label, (_, values) in reversed(list(found.items())):
        there = np.sort(values[np.isfinite(values)])
        axes.plot(
            (np.arange(len(there)) + 0.5) / len(there), there, color=palette[label], linewidth=2.0,
            marker="o" if len(there) <= NAMED else "", markersize=4, markeredgecolor="white",
        )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel(f"{compared.measure} of the class")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, 0, " %"))
    percent_axis(axes)
    name = file_name(charts.short_name(compared.metric), "classes by rank")
    return Chart(name, f"{compared.metric} of the classes, each group's from the worst to the best", figure)


def shares(compared: Comparison) -> dict[str, recorded.Trained]:
    """What each group's first run that counted has trained on, by group.

    Raises:
        RunError: if a file is damaged.
    """
    found = {}
    for group in compared.groups:
        for row in group.counted:
            trained = recorded.trained_on(row.run.path)
            if trained is not None:
                found[group.label] = trained
                break
    return found


def shares_by_class(compared: Comparison) -> Optional[Chart]:
    """How often each class was trained on, as a multiple of the baseline's share of it.

    Of many classes those that any group took least and most of.

    Returns:
        None if no baseline has counted, or nobody else.

    Raises:
        RunError: if a file is damaged.
    """
    found = shares(compared)
    baselines = {
        group.label: found[group.label]
        for group in compared.groups
        if group.is_baseline and group.label in found
    }
    ratios: dict[str, np.ndarray] = {}
    names: tuple[str, ...] = ()
    for group in compared.groups:
        baseline = baselines.get(group.baseline or "")
        trained = found.get(group.label)
        if group.is_baseline or baseline is None or trained is None or trained.names != baseline.names:
            continue
        if names and trained.names != names:
            continue
        names = trained.names
        # Half an example more of each: a class that has none yet is no division by 0.
        ratios[group.label] = ((trained.counts + 0.5) / (trained.counts.sum() + 0.5 * len(names))) / (
            (baseline.counts + 0.5) / (baseline.counts.sum() + 0.5 * len(names))
        )
    if not ratios:
        return None
    chosen = _ends(np.mean(list(ratios.values()), axis=0))
    what = "true class" if all(item.by_truth for item in found.values()) else "class"
    title = f"Examples of a {what} trained on,\nas a multiple of the baseline's"
    figure, axes = new_axes(title, "times as often as the baseline", 1.6 + 0.24 * len(chosen))
    palette = colours(compared.groups)
    places = np.arange(len(chosen))
    axes.axvline(1.0, color=BASELINE_COLOUR, linewidth=1.0)
    for label, values in ratios.items():
        axes.plot(values[chosen], places, "o", color=palette[label], markersize=7, markeredgecolor="white")
    axes.set_yticks(places, [_cut(names[i]) for i in chosen], color=INK)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in _MULTIPLES if low <= tick <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.invert_yaxis()
    return Chart(file_name("classes trained on"), f"{title}, by class".replace("\n", " "), figure)


def accuracy_by_class(
    compared: Comparison, found: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
) -> Optional[Chart]:
    """Each class by its name, a point a group; of many classes those that differ most from the baseline.

    Returns:
        None if nobody knows any, or the groups know different classes.
    """
    if not found or len({names for names, _ in found.values()}) > 1:
        return None
    names = next(iter(found.values()))[0]
    values = np.array([accuracy for _, accuracy in found.values()])
    there = np.flatnonzero(np.isfinite(values).all(axis=0))
    if len(there) <= NAMED:
        chosen, which = there[np.argsort(values[0, there], kind="stable")], "Each class"
    else:
        base = _of_baseline(compared.groups, found)
        if base is None or len(values) < 2:
            return None
        others = np.mean([accuracy for label, (_, accuracy) in found.items() if label != base], axis=0)
        gains = (others - found[base][1])[there]
        chosen, which = there[_ends(gains)], "Classes that lose or gain most"
    figure, axes = new_axes(which, f"{compared.measure} of the class", 1.4 + 0.24 * len(chosen))
    places = np.arange(len(chosen))
    palette = colours(compared.groups)
    axes.hlines(places, values[:, chosen].min(0), values[:, chosen].max(0), color=SPINE, linewidth=1.0)
    for label, (_, accuracy) in found.items():
        axes.plot(accuracy[chosen], places, "o", color=palette[label], markersize=7, markeredgecolor="white")
    axes.set_yticks(places, [_cut(names[i]) for i in chosen], color=INK)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, None, " %"))
    name = file_name(charts.short_name(compared.metric), "by class")
    return Chart(name, f"{compared.metric} of each class", figure)


def _of_baseline(groups: "tuple[Group, ...]", found: Mapping[str, object]) -> Optional[str]:
    return next((group.label for group in groups if group.is_baseline and group.label in found), None)


def _ends(values: np.ndarray) -> np.ndarray:
    """Where the lowest and the highest values are, in their order; all if there are few."""
    order = np.argsort(values, kind="stable")
    half = NAMED // 2
    return order if len(order) <= NAMED else np.r_[order[:half], order[-half:]]


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
