"""Charts of learner speed-up: at several targets, and against what the scoring costs."""

from collections.abc import Sequence
from typing import Optional

import numpy as np
from matplotlib.ticker import PercentFormatter

from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group
from classact.experiments.report import charts, summary
from classact.experiments.report.drawing import (
    BASELINE_COLOUR,
    GREY,
    SPINE,
    Chart,
    colours,
    file_name,
    new_axes,
    percent_axis,
)

_LABELLED = 18


def speedup_at_targets(compared: Comparison) -> Optional[Chart]:
    """Fewer updates at each share of the baseline's final value, for each group; bands span the seeds.

    Returns:
        None if no group has two targets that all its runs and their baselines reached.
    """
    figure, axes = new_axes(
        f"Fewer updates to reach a share of the\nbaseline's final {compared.measure}",
        f"share of the baseline's final {compared.measure}",
    )
    palette, some = colours(compared.groups), False
    for group in compared.groups:
        points = [] if group.is_baseline else _at_shares(compared, group)
        if len(points) < 2:
            continue
        some = True
        shares, values = [share for share, _ in points], np.array([found for _, found in points])
        colour = palette[group.label]
        if values.shape[1] > 1:
            axes.fill_between(shares, values.min(1), values.max(1), color=colour, alpha=0.15, linewidth=0)
        axes.plot(shares, values.mean(1), "o-", color=colour, markersize=5, markeredgecolor="white")
    if not some:
        return None
    axes.axhline(0.0, color=BASELINE_COLOUR, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, 0, " %"))
    percent_axis(axes)
    name = file_name(charts.short_name(compared.metric), "speed-up at targets")
    return Chart(name, f"{compared.metric}: fewer updates at several targets", figure)


def _at_shares(compared: Comparison, group: Group) -> list[tuple[float, list[float]]]:
    """(share, fewer updates of each run) where all of a group's runs have an exact figure."""
    found = []
    for place, target in enumerate(compared.targets_tried):
        each = [row.at_targets[place] if row.at_targets else None for row in group.counted]
        exact = [
            item.fewer for item in each if item is not None and not item.bound and item.fewer is not None
        ]
        if target.share is not None and exact and len(exact) == len(each):
            found.append((target.share, exact))
    return found


def actor_cost(group: Group) -> Optional[float]:
    """What scoring has cost for each MAC of the learner's training, on average over the runs."""
    costs = []
    for row in group.counted:
        training = row.run.ledger.get("learner_training_macs")
        if not training:
            return None
        costs.append(row.run.ledger.get("scoring_macs", 0.0) / training)
    return sum(costs) / len(costs) if costs else None


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, gain) that no other has at less cost or the same, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or gain > best[-1][1]:
            best.append((cost, gain))
    return best


def pareto(compared: Comparison) -> Optional[Chart]:
    """Learner speed-up against actor cost, a point a group, with the frontier.

    Returns:
        None if there is no group but baselines that reached its target with a ledger.
    """
    palette = colours(compared.groups)
    points: dict[str, tuple[float, float]] = {}
    for group in compared.groups:
        cost, fewer = actor_cost(group), group.mean("fewer_updates")
        if cost is not None and fewer is not None:
            points[group.label] = (cost, fewer)
    if all(group.is_baseline for group in compared.groups if group.label in points):
        return None
    figure, axes = new_axes(
        "Learner speed-up against actor cost", "scoring, in MACs of the learner's training"
    )
    edge = np.array(frontier(list(points.values())))
    axes.plot(edge[:, 0], edge[:, 1], color=SPINE, linewidth=1.2, zorder=1)
    right = 1.15 * max(cost for cost, _ in points.values()) or 1.0
    costs = np.linspace(0.0, right, 100)
    # What an update costs more is saved by fewer of them: (1 − fewer) · (1 + cost) = 1.
    axes.plot(costs, costs / (1.0 + costs), color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    hollow = {group.label for group in compared.groups if summary.within_chance(group)}
    for label, (cost, fewer) in points.items():
        colour = palette[label]
        rim, inside = (colour, "white") if label in hollow else ("white", colour)
        axes.plot([cost], [fewer], "o", color=inside, markersize=9, markeredgecolor=rim)
        short = label if len(label) <= _LABELLED else f"{label[:_LABELLED]}…"
        left = cost > 0.6 * right
        axes.annotate(
            short, (cost, fewer), (-9 if left else 9, 4), textcoords="offset points",
            color=GREY, fontsize=10, ha="right" if left else "left",
        )  # fmt: skip
    axes.set_xlim(-0.03 * right, right)
    axes.set_ylabel("fewer updates")
    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, None, " %"))
    percent_axis(axes)
    name = file_name(charts.short_name(compared.metric), "pareto")
    return Chart(name, f"{compared.metric}: fewer updates against the cost of scoring", figure)
