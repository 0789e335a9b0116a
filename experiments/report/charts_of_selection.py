"""Charts of what policies select: scores over time, and shares of what was trained on."""

from typing import Optional

import numpy as np
from matplotlib.axes import Axes

from classact.experiments import recorded
from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group
from classact.experiments.recorded import PERCENTILES
from classact.experiments.report import charts
from classact.experiments.report.drawing import (
    Chart,
    colours,
    file_name,
    new_axes,
    percent_axis,
    updates_axis,
)


def corrupted_against_updates(compared: Comparison) -> Optional[Chart]:
    """The share of corrupted labels or captions in what the learner was trained on.

    Returns:
        None where the corruption is not known.
    """
    title = f"Wrong {compared.targets} among the examples trained on"
    return _share(compared, "selection/corrupted_fraction", title)


def repeated_against_updates(compared: Comparison) -> Optional[Chart]:
    """The share of examples that had been trained on before; None where nobody counted."""
    return _share(compared, "selection/repeated_fraction", "Examples that had been trained on before")


def learned_against_updates(compared: Comparison) -> Optional[Chart]:
    """The share that the learner had right before it trained on them; None where that is not known."""
    return _share(compared, "train/top1", "Already learned when they were trained on")


def _share(compared: Comparison, name: str, title: str) -> Optional[Chart]:
    figure, axes = new_axes(title, "learner updates")
    drawn = charts.draw_groups(axes, compared.groups, lambda row: row.run.learner_curve(name))
    if not drawn:
        return None
    axes.set_ylim(bottom=0.0, top=max(0.01, 1.05 * max(line[:, 1].max() for line in drawn)))
    percent_axis(axes)
    updates_axis(axes)
    return Chart(file_name(name.split("/")[-1]), f"{title}, against learner updates", figure)


def scores_over_time(compared: Comparison, group: Group) -> Optional[Chart]:
    """How the scores of a group's first run that recorded them were distributed.

    Bands from the 1st to the 99th percentile, the 5th to the 95th, and so on; a line for the median.

    Returns:
        None if no run has.

    Raises:
        RunError: if a file is damaged.
    """
    found = next((scores for row in group.rows if len(scores := recorded.scores(row.run.path)) > 1), None)
    if found is None:
        return None
    figure, axes = new_axes(f"Scores of {_shortened(group.label)}", "learner updates")
    colour = colours(compared.groups)[group.label]
    steps, values = found[:, 0], found[:, 1:]
    for i in range(len(PERCENTILES) // 2):
        axes.fill_between(steps, values[:, i], values[:, -1 - i], color=colour, alpha=0.17, linewidth=0)
    axes.plot(steps, values[:, len(PERCENTILES) // 2], color=colour, linewidth=2.0)
    updates_axis(axes)
    axes.set_ylabel("score")
    _leave_out_far_tails(axes, values)
    return Chart(file_name("scores", group.label), f"percentiles of the scores of {group.label}", figure)


def _leave_out_far_tails(axes: Axes, values: np.ndarray) -> None:
    """Keeps one batch's outlier from flattening all else."""
    low, high = np.median(values[:, 0]), np.median(values[:, -1])
    margin = 0.6 * (high - low) or 1.0
    axes.set_ylim(max(values.min(), low - margin), min(values.max(), high + margin))


def _shortened(label: str) -> str:
    return label if len(label) <= 34 else f"{label[:33]}…"
