"""Figure 3: the policies, on icons with 30 % of their labels redrawn and a reference of right ones.

Command:
    classact sweep experiments/figures/figure_3.py --out=runs/figures

The learner is Mu_6-1, the scorers are Mu_1-1; three seeds, test half.
"""

from classact.experiments.figures import drawing, parts
from classact.experiments.figures.drawing import policies_compared as draw
from classact.experiments.figures.parts import Part, baseline, get_config

__all__ = ["RUNS", "baseline", "draw", "get_config"]

_POLICIES = ("classact", "easy_reference", "learnability", "hard_learner", "classact_online")
RUNS = parts.with_baselines(
    drawing.of_seeds(range(3), *(Part(policy, learner=parts.SMALL) for policy in _POLICIES))
)
