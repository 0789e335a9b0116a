"""The learning rate, uniform's and selection's over one grid, on validation data.

Command:
    classact sweep experiments/figures/rates.py --out=runs/figures

Each run is held against uniform at the same rate; `goal.py` takes the best rate of each kind.
The goal's learner comes first, then that of the other figures.
"""

from classact.experiments.figures import parts
from classact.experiments.figures.parts import Part, baseline, get_config

__all__ = ["RUNS", "baseline", "get_config"]

RATES = (5e-4, 1e-3, 2e-3)
RUNS = parts.with_baselines(
    part
    for learner in (Part.learner, parts.SMALL)
    for lr in RATES
    for part in (
        Part("classact", learner=learner, lr=lr, on=parts.VALIDATION),
        Part("classact", learner=learner, lr=lr, alpha=0.25, ref_noise=0.3, on=parts.VALIDATION),
    )
)
