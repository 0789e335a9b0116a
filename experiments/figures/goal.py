"""The goal: five seeds on test data, with a clean and with an in-domain reference, at equal compute too.

Command:
    classact sweep experiments/figures/goal.py --out=runs/figures

Uniform and selection have the learning rates that were best for each on validation data
(`rates.py`); the temperature, the filter ratio and the references are the demonstration's. A
second uniform run has its own complete schedule of as many updates as cost what selection costs in all,
its reference's training included.
"""

import dataclasses
from collections.abc import Mapping

from matplotlib.figure import Figure

from classact.experiments.curves import Run
from classact.experiments.figures import drawing, parts
from classact.experiments.figures.parts import Part, get_config

__all__ = ["RUNS", "baseline", "draw", "get_config"]

_SEEDS = range(5)
_UNIFORM = Part("uniform", lr=5e-4)
# 1 + (2ρ + 3) · F_s / (3 · F_l) and the reference's 1,000 updates: 1.172 times uniform's MACs.
_AS_COSTLY = dataclasses.replace(_UNIFORM, steps=1172)
_SELECTIONS = (Part("classact"), Part("classact", alpha=0.25, ref_noise=0.3))

RUNS = tuple(part.name for part in drawing.of_seeds(_SEEDS, _UNIFORM, *_SELECTIONS, _AS_COSTLY))


def baseline(name: str) -> str | None:
    """The name of the uniform run of its seed, at uniform's own best learning rate."""
    part = parts.parse(name)
    return None if part.policy == "uniform" else dataclasses.replace(_UNIFORM, seed=part.seed).name


def draw(runs: Mapping[str, Run]) -> Figure | None:
    """Learning curves, and what selection saves with either reference."""
    return drawing.policies_compared(runs, _label, baseline)


def _label(part: Part) -> str:
    if part.policy == "uniform":
        return "uniform" if part.steps == _UNIFORM.steps else "uniform, as costly as selection"
    return f"in-domain reference, α = {part.alpha:g}" if part.ref_noise else "clean reference"
