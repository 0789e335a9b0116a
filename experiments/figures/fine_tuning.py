"""Fine-tuning after selection: does what selection has gained last on right labels?

Command:
    classact sweep experiments/figures/fine_tuning.py --out=runs/figures

Learners Mu_6-1 that have trained for 1,000 updates on icons, 30 % of the labels redrawn, with and
without selection, are trained for another 500 updates on IID batches of right labels, and one from
random weights with them. Half the first learning rate, a complete schedule; three seeds, test half. A
run's name is how its weights were made and its seed.
"""

import dataclasses

import ml_collections

from classact.experiments.figures import parts
from classact.experiments.figures.parts import Part

_BEFORE = {
    "uniform": Part("uniform", learner=parts.SMALL),
    "classact": Part("classact", learner=parts.SMALL),
    "easy_reference": Part("easy_reference", learner=parts.SMALL),
    "in_domain": Part("classact", learner=parts.SMALL, alpha=0.25, ref_noise=0.3),
}
_STEPS, _EVALUATIONS = 500, 20
RUNS = tuple(f"tuned-{before}-{seed}" for seed in range(3) for before in (*_BEFORE, "nothing"))


def get_config(name: str) -> ml_collections.ConfigDict:
    """The configuration of a fine-tuning, or of the run before it.

    Raises:
        ValueError: for an unknown name.
    """
    if not name.startswith("tuned-"):
        return parts.get_config(name)
    _, before, seed = name.split("-")
    made = Part("uniform", noise=0.0, learner=parts.SMALL, steps=_STEPS, lr=5e-4, seed=int(seed))
    config = parts.get_config(made.name)
    config.evaluation.every = _STEPS // _EVALUATIONS
    if before != "nothing":
        config.learner.init = dataclasses.replace(_BEFORE[before], seed=int(seed)).name
    return config


def baseline(name: str) -> str | None:
    """The fine-tuning of the uniform run of the seed."""
    if not name.startswith("tuned-"):
        return None
    _, before, seed = name.split("-")
    return None if before == "uniform" else f"tuned-uniform-{seed}"
