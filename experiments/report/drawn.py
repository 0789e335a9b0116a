"""All charts of a report, drawn once: for its page, and for files beside it."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, TypeVar

import numpy as np

from classact.experiments.compare.comparison import Comparison
from classact.experiments.curves import RunError
from classact.experiments.report import (
    charts,
    charts_of_classes,
    charts_of_selection,
    charts_of_targets,
    table,
)
from classact.experiments.report.drawing import Chart

_T = TypeVar("_T")
# Of many classes the worst tenth.
_WORST_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class WorstClass:
    """The class, or one of the classes, that a group does worst on: texts for a table."""

    label: str
    name: str
    worst: str
    worst_tenth: str
    all_classes: str


@dataclasses.dataclass(frozen=True)
class OfMetric:
    """The charts of a comparison by one metric.

    Attributes:
        curves: the metric against what it took.
        cost: what reaching the baseline's final value was spent on, if that is known.
        speedups: at several targets, and against what scoring costs.
        classes: how well each class is learned.
        worst: a line a group.
    """

    curves: tuple[Chart, ...]
    cost: Optional[Chart]
    speedups: tuple[Chart, ...]
    classes: tuple[Chart, ...]
    worst: tuple[WorstClass, ...]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """All charts of a report.

    Attributes:
        metrics: those of each comparison.
        selection: of what was trained on, whatever the metric.
        notes: what could not be drawn, one sentence each.
    """

    metrics: tuple[OfMetric, ...]
    selection: tuple[Chart, ...]
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[Chart]:
        for own in self.metrics:
            yield from (*own.curves, *([own.cost] if own.cost else []), *own.speedups, *own.classes)
        yield from self.selection

    def save(self, folder: pathlib.Path) -> None:
        """Writes each chart as SVG and as PNG; makes the folder if need be.

        Raises:
            OSError: if one cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for chart in self:
            chart.save(folder)


def draw(comparisons: Sequence[Comparison]) -> Drawn:
    """Draws what there is data for; a damaged file's chart is left out with a note."""
    notes: dict[str, None] = {}

    def tried(make: Callable[..., _T], otherwise: _T, *arguments: Any) -> _T:
        try:
            return make(*arguments)
        except RunError as error:
            notes[f"Not drawn: {error}."] = None
            return otherwise

    no_classes: tuple[tuple[Chart, ...], tuple[WorstClass, ...]] = ((), ())
    several = len(comparisons) > 1
    drawn = tuple(
        OfMetric(
            _there(
                charts.metric_against_updates(compared),
                charts.metric_against_macs(compared),
                charts.metric_against_seconds(compared),
            ),
            charts.compute_bars(compared, charts.short_name(compared.metric) if several else ""),
            _there(charts_of_targets.speedup_at_targets(compared), charts_of_targets.pareto(compared)),
            *tried(_classes, no_classes, compared),
        )
        for compared in comparisons
    )
    first = comparisons[0]
    selection = [
        charts_of_selection.corrupted_against_updates(first),
        charts_of_selection.repeated_against_updates(first),
        charts_of_selection.learned_against_updates(first),
        tried(charts_of_classes.shares_by_class, None, first),
        *(tried(charts_of_selection.scores_over_time, None, first, group) for group in first.groups),
    ]
    return Drawn(drawn, _there(*selection), tuple(notes))


def _there(*found: Optional[Chart]) -> tuple[Chart, ...]:
    return tuple(chart for chart in found if chart is not None)


def _classes(compared: Comparison) -> tuple[tuple[Chart, ...], tuple[WorstClass, ...]]:
    found = charts_of_classes.accuracies(compared)
    worst = []
    for label, (names, values) in found.items():
        there = np.flatnonzero(np.isfinite(values))
        order = there[np.argsort(values[there], kind="stable")]
        alike = int(np.count_nonzero(values[there] == values[order[0]])) - 1
        tenth = order[: max(1, round(_WORST_SHARE * len(order)))]
        worst.append(
            WorstClass(
                label,
                names[order[0]] + (f" and {alike} more" if alike else ""),
                table.percent(float(values[order[0]])),
                table.percent(float(values[tenth].mean())),
                table.percent(float(values[order].mean())),
            )
        )
    drawn = _there(
        charts_of_classes.classes_by_rank(compared, found),
        charts_of_classes.accuracy_by_class(compared, found),
    )
    return drawn, tuple(worst)
