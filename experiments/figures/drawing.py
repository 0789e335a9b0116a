"""What the figures share: means and spreads over seeds, one colour for each kind of run."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from classact.experiments import curves
from classact.experiments.compare import bands
from classact.experiments.compare.comparison import compare_row
from classact.experiments.compare.groups import Group, Row
from classact.experiments.curves import Run
from classact.experiments.figures import parts
from classact.experiments.figures.parts import Part
from classact.experiments.report.drawing import BASELINE_COLOUR, PALETTE

_WIDTH, _HEIGHT = 5.4, 3.7


def figure(columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure with its charts side by side."""
    made = Figure(figsize=(_WIDTH * columns, _HEIGHT), layout="constrained")
    axes = list(np.atleast_1d(made.subplots(1, columns)))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#e4e7eb")
        each.set_axisbelow(True)
    return made, axes


def without_seed(name: str) -> Part:
    """The part of a run, as that of seed 0: the same for the seeds of one experiment."""
    return dataclasses.replace(parts.parse(name), seed=0)


def by_experiment(runs: Mapping[str, Run]) -> dict[Part, dict[int, Run]]:
    """The runs by experiment and seed, in the order given."""
    found: dict[Part, dict[int, Run]] = {}
    for name, run in runs.items():
        found.setdefault(without_seed(name), {})[parts.parse(name).seed] = run
    return found


Baseline = Callable[[str], str | None]


def rows(runs: Mapping[str, Run], baseline: Baseline = parts.baseline) -> dict[str, Row]:
    """Each run's figures against its baseline's, where that is there."""
    found = {}
    for name, run in runs.items():
        row = Row(run, None if run.diverged_at is not None else curves.final(run.curve))
        other = baseline(name)
        if other is None:
            found[name] = row
        elif other in runs:
            base = Row(runs[other], curves.final(runs[other].curve))
            found[name] = compare_row(row, Group(other, (base,), is_baseline=True))
    return found


def draw_curves(axes: Axes, runs: Mapping[str, Run], label: Callable[[Part], str]) -> None:
    """Smoothed learning curves: the mean over seeds, and the band of these."""
    colours = iter(PALETTE)
    for part, seeds in by_experiment(runs).items():
        # The first uniform one is the baseline; another has a colour of its own.
        colour = BASELINE_COLOUR if part.policy == "uniform" and not axes.lines else next(colours)
        found = [curves.smooth(run.curve) for run in seeds.values() if run.curve and run.diverged_at is None]
        if not found:
            continue
        band = bands.aggregate(found)
        axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(band.steps, band.mean, color=colour, label=f"{label(part)} ({len(found)})")
    axes.set_xlabel("learner updates")
    axes.set_ylabel("top-1")
    percent(axes.yaxis)
    axes.legend(fontsize=8, frameon=False, title="policy (seeds)", title_fontsize=8)


def draw_bars(
    axes: Axes,
    runs: Mapping[str, Run],
    column: str,
    label: Callable[[Part], str],
    baseline: Baseline = parts.baseline,
) -> None:
    """A column of `Row`: a bar for the mean over seeds, a point for each.

    A seed that has not reached its baseline's final accuracy has no point, and is counted in
    the label; then there is no bar.
    """
    found = rows(runs, baseline)
    experiments = [part for part in by_experiment(runs) if part.policy != "uniform"]
    for place, part in enumerate(experiments):
        names = [name for name in found if without_seed(name) == part]
        values = [getattr(found[name], column) for name in names]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            axes.barh(place, np.mean(known), color=PALETTE[place % len(PALETTE)], alpha=0.7)
        axes.plot(known, [place] * len(known), "o", color=BASELINE_COLOUR, markersize=3)
        if len(known) < len(values):
            missed = f"{len(values) - len(known)} of {len(values)} not reached"
            axes.annotate(missed, (0.0, place), fontsize=8, va="center")
    axes.set_yticks(range(len(experiments)), [label(part) for part in experiments])
    axes.invert_yaxis()
    axes.axvline(0.0, color=BASELINE_COLOUR, linewidth=0.8)
    # Labels in per cent are wide.
    axes.xaxis.set_major_locator(MaxNLocator(5))
    percent(axes.xaxis)


def percent(axis: object) -> None:
    """Labels an axis in per cent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))  # type: ignore[attr-defined]


def policy(part: Part) -> str:
    """The name of an experiment by its policy."""
    return part.policy


def policies_compared(
    runs: Mapping[str, Run], label: Callable[[Part], str] = policy, baseline: Baseline = parts.baseline
) -> Optional[Figure]:
    """Curves, and the updates and the compute that each experiment saves, side by side."""
    made, (left, middle, right) = figure(3)
    draw_curves(left, runs, label)
    draw_bars(middle, runs, "fewer_updates", label, baseline)
    middle.set_title("fewer updates to uniform's final accuracy", fontsize=10)
    draw_bars(right, runs, "saving_full", label, baseline)
    right.set_title("compute saved, everything counted", fontsize=10)
    return made


def of_seeds(seeds: Iterable[int], *every: Part) -> Sequence[Part]:
    """Each part with each seed."""
    return [dataclasses.replace(part, seed=seed) for seed in seeds for part in every]
