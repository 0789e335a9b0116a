"""When which weight of the online loss (α) is right: by noise, reference, length of the run and data.

Command:
    classact sweep experiments/figures/alphas.py --out=runs/figures

The learner is Mu_6-1, three times cheaper than that of the other figures. References are in-domain ones
but where `ref_noise` differs from `noise`. On validation data, one seed.
"""

import dataclasses
from collections.abc import Mapping

from matplotlib.figure import Figure

from classact.experiments.curves import Run
from classact.experiments.figures import drawing, parts
from classact.experiments.figures.parts import Part, baseline, get_config
from classact.experiments.report.drawing import PALETTE

__all__ = ["RUNS", "baseline", "draw", "get_config"]

_ALPHAS = (1.0, 0.5, 0.25, 0.0)
_ICONS = Part("classact", learner=parts.SMALL, ref_noise=0.3, on=parts.VALIDATION)
_FASHION = dataclasses.replace(_ICONS, data="fashion", noise=0.2, ref_noise=0.2)
_SETTINGS = {
    "icons, 30 %": _ICONS,
    "icons, 10 %": dataclasses.replace(_ICONS, noise=0.1, ref_noise=0.1),
    "icons, 50 %": dataclasses.replace(_ICONS, noise=0.5, ref_noise=0.5),
    "natural noise only": dataclasses.replace(_ICONS, noise=0.0, ref_noise=0.0),
    "reference of 300 updates": dataclasses.replace(_ICONS, ref_steps=300),
    "reference of 3,000 updates": dataclasses.replace(_ICONS, ref_steps=3000),
    "reference of right labels": dataclasses.replace(_ICONS, ref_noise=0.0),
    "Fashion-MNIST, 20 %": _FASHION,
    "twice as long": dataclasses.replace(_ICONS, steps=2000),
}
RUNS = parts.with_baselines(
    dataclasses.replace(setting, alpha=alpha) for setting in _SETTINGS.values() for alpha in _ALPHAS
)


def draw(runs: Mapping[str, Run]) -> Figure:
    """Updates saved, and wrong labels trained on, against α: a line for each setting."""
    made, (left, right) = drawing.figure(2)
    made.set_size_inches(12.5, 4.5)
    rows = drawing.rows(runs)
    for place, (label, setting) in enumerate(_SETTINGS.items()):
        names = {alpha: dataclasses.replace(setting, alpha=alpha).name for alpha in _ALPHAS}
        colour, marker = PALETTE[place % len(PALETTE)], "osD^v"[place // len(PALETTE)]
        for axes, values in (
            (left, {alpha: rows[name].fewer_updates for alpha, name in names.items() if name in rows}),
            (right, {alpha: rows[name].corrupted for alpha, name in names.items() if name in rows}),
        ):
            known = {alpha: value for alpha, value in values.items() if value is not None}
            axes.plot(list(known), list(known.values()), marker=marker, color=colour, label=label)
    left.set_title("fewer updates to uniform's final accuracy", fontsize=10)
    right.set_title("wrong labels trained on", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("α, weight of the online model's loss")
        drawing.percent(axes.yaxis)
    made.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return made
