"""Twice, four and eight times as long, each with its own complete schedule: do the gains vanish?

Command:
    classact sweep experiments/figures/longer.py --out=runs/figures

The learner is Mu_6-1, the references have 1,000 updates as everywhere; 30 % of the labels are
redrawn. One seed, test half. 8,000 updates of 64 are 19 passes over the icons.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure

from classact.experiments.curves import Run
from classact.experiments.figures import drawing, parts
from classact.experiments.figures.parts import Part, baseline, get_config

__all__ = ["RUNS", "baseline", "draw", "get_config"]

_STEPS = (1000, 2000, 4000, 8000)
RUNS = parts.with_baselines(
    part
    for steps in _STEPS
    for part in (
        Part("classact", learner=parts.SMALL, steps=steps),
        Part("classact", learner=parts.SMALL, steps=steps, alpha=0.25, ref_noise=0.3),
    )
)


def _label(part: Part) -> str:
    reference = f"in-domain, α = {part.alpha:g}" if part.ref_noise else "clean"
    return f"{part.steps:,} updates, {reference}"


def draw(runs: Mapping[str, Run]) -> Figure:
    """Updates and compute saved, a bar for each length and reference."""
    made, (left, right) = drawing.figure(2)
    drawing.draw_bars(left, runs, "fewer_updates", _label)
    left.set_title("fewer updates to uniform's final accuracy", fontsize=10)
    drawing.draw_bars(right, runs, "saving_full", _label)
    right.set_title("compute saved, everything counted", fontsize=10)
    return made
