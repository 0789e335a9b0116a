"""Table 1: RHO, ClassAct-HO, ClassAct, ClassAct-Online: updates and compute.

Command:
    classact sweep experiments/figures/table_1.py --out=runs/figures

The references of `rho` and `classact_ho` have learned from half of the noisy data, which their
learners do not see; that of `classact` from all of it; that of `classact_online` from the stream.
The learner is Mu_6-1; three seeds, test half. All are held against uniform on all of the data, which
is twice what the first two learn from.
"""

from classact.experiments.figures import drawing, parts
from classact.experiments.figures.drawing import policies_compared as draw
from classact.experiments.figures.parts import Part, baseline, get_config

__all__ = ["RUNS", "baseline", "draw", "get_config"]

RUNS = parts.with_baselines(
    drawing.of_seeds(
        range(3),
        Part("rho", learner=parts.SMALL, ref_noise=0.3, split="rest"),
        Part("classact_ho", learner=parts.SMALL, ref_noise=0.3, split="rest"),
        Part("classact", learner=parts.SMALL, ref_noise=0.3),
        Part("classact_online", learner=parts.SMALL),
    )
)
