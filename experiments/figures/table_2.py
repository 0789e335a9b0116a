"""Table 2 and Figure 6: references across data sets, on pairs of icons and their names.

Command:
    classact sweep experiments/figures/table_2.py --out=runs/figures

A learner on noisy pairs (30 % of the names shuffled) or on curated ones, on IID batches or steered
by a reference of either; by zero-shot accuracy on icons-50. A run's name is its data, its selection
and its seed: `noisy-clean-0` is steered by a reference of curated pairs. The learner's image tower is Mu_6-1.
"""

import ml_collections

from classact.experiments.configs import image_text
from classact.experiments.figures import parts

METRIC = "eval/icons_50/zero_shot_top1"
_DATA = {"noisy": ("icon_pairs", 0.3), "clean": ("icon_pairs?subset=clean", 0.0)}
_SELECTIONS = ("uniform", *_DATA)
_STEPS = 800
RUNS = tuple(f"{data}-{how}-{seed}" for seed in range(3) for data in _DATA for how in _SELECTIONS)


def get_config(name: str) -> ml_collections.ConfigDict:
    """The configuration of a run, or of a reference: `noisy-reference-0`.

    Raises:
        ValueError: for another name.
    """
    data, how, seed = name.split("-")
    if data not in _DATA or how not in (*_SELECTIONS, "reference"):
        raise ValueError(f"{name!r}: expected DATA-SELECTION-SEED, such as noisy-clean-0")
    config = image_text.get_icons_config(_DATA["clean"][0])
    config.train_data, config.caption_noise = _DATA[data]
    config.eval_data = _DATA["noisy"][0]
    config.steps = _STEPS
    config.evaluation.every = _STEPS // 20
    config.seed = int(seed)
    config.learner.model = config.scorer.model if how == "reference" else f"vit_{parts.SMALL}"
    if how in _DATA:
        config.policy = "classact"
        config.reference.checkpoint = f"{how}-reference-{seed}"
    return config


def baseline(name: str) -> str | None:
    """The uniform run on the same pairs."""
    data, how, seed = name.split("-")
    return f"{data}-uniform-{seed}" if how in _DATA else None
