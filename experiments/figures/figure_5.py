"""Figure 5: four budgets, and the power laws of error against compute that IID and ClassAct follow.

Command:
    classact sweep experiments/figures/figure_5.py --out=runs/figures

Every run has its own complete schedule, so each point is the end of one. The learner is Mu_6-1;
three seeds, test half.
"""

from collections.abc import Mapping

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from classact.experiments import curves
from classact.experiments.curves import Run
from classact.experiments.figures import drawing, parts
from classact.experiments.figures.parts import Part, baseline, get_config
from classact.experiments.report.drawing import BASELINE_COLOUR, PALETTE

__all__ = ["RUNS", "baseline", "draw", "get_config", "power_law"]

_STEPS = (250, 500, 1000, 2000)
RUNS = parts.with_baselines(
    drawing.of_seeds(range(3), *(Part("classact", learner=parts.SMALL, steps=steps) for steps in _STEPS))
)


def power_law(macs: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Fits error = a · MACs^−b by least squares of the logarithms.

    Args:
        macs: float64[N], what each run has spent.
        errors: float64[N], its share of wrong answers.

    Returns:
        (a, b, the standard error of b).
    """
    fit = scipy.stats.linregress(np.log(macs), np.log(errors))
    return float(np.exp(fit.intercept)), float(-fit.slope), float(fit.stderr)


def draw(runs: Mapping[str, Run]) -> Figure:
    """Final error against all that a run has spent, with the fitted laws."""
    made, (axes,) = drawing.figure()
    for policy, colour in (("uniform", BASELINE_COLOUR), ("classact", PALETTE[0])):
        points = [
            (run.ledger["total_macs"], 1.0 - (curves.final(run.curve) or 0.0))
            for name, run in runs.items()
            if parts.parse(name).policy == policy and run.diverged_at is None
        ]
        if not points:
            continue
        macs, errors = np.array(sorted(points)).T
        axes.loglog(macs, errors, "o", color=colour, markersize=4)
        if len(set(macs)) > 2:
            factor, exponent, deviation = power_law(macs, errors)
            label = f"{policy}: error ∝ MACs^−{exponent:.3f} ± {deviation:.3f}"
            axes.loglog(macs, factor * macs**-exponent, color=colour, label=label)
    axes.set_xlabel("MACs, everything counted")
    axes.set_ylabel("error at the end")
    axes.legend(fontsize=8, frameon=False)
    return made
