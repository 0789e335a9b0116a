"""The in-domain gap: which weight of the online loss (α) is right when the reference has seen the same noise.

Command:
    classact sweep experiments/figures/in_domain.py --out=runs/figures
"""

from classact.experiments.figures import parts
from classact.experiments.figures.parts import Part, baseline, get_config

__all__ = ["RUNS", "baseline", "get_config"]

_SEEDS = range(3)
_ALPHAS = (1.0, 0.5, 0.25, 0.0)
RUNS = parts.with_baselines(
    Part("classact", alpha=alpha, ref_noise=0.3, on=parts.VALIDATION, seed=seed)
    for alpha in _ALPHAS
    for seed in _SEEDS
)
