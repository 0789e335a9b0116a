"""Figure 4: the size of the scorer, from a seventh of the learner to its own; against easy reference.

Command:
    classact sweep experiments/figures/figure_4.py --out=runs/figures

The online model's learning rate is swept with it, as rankings of small runs flip with that. The learner
is Mu_6-1; three seeds, test half.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure

from classact.experiments.curves import Run
from classact.experiments.figures import drawing, parts
from classact.experiments.figures.parts import Part, baseline, get_config

__all__ = ["RUNS", "baseline", "draw", "get_config"]

_SCORERS = ("mu_1_1", "mu_2_1", "mu_3_1", parts.SMALL)
_RATES = (0.5, 2.0)
RUNS = parts.with_baselines(
    drawing.of_seeds(
        range(3),
        *(
            Part(policy, learner=parts.SMALL, scorer=scorer)
            for scorer in _SCORERS
            for policy in ("classact", "easy_reference")
        ),
        *(
            Part("classact", learner=parts.SMALL, scorer=scorer, scorer_lr=rate)
            for scorer in _SCORERS[:2]
            for rate in _RATES
        ),
    )
)


def _label(part: Part) -> str:
    rate = f", rate ×{part.scorer_lr:g}" if part.scorer_lr != 1.0 else ""
    return f"{part.policy}, {part.scorer}{rate}"


def draw(runs: Mapping[str, Run]) -> Figure:
    """Updates and compute saved, a bar for each scorer."""
    made, (left, right) = drawing.figure(2)
    made.set_figheight(6.0)
    drawing.draw_bars(left, runs, "fewer_updates", _label)
    left.set_title("fewer updates to uniform's final accuracy", fontsize=10)
    drawing.draw_bars(right, runs, "saving_full", _label)
    right.set_title("compute saved, everything counted", fontsize=10)
    return made
