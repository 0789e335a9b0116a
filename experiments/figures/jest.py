"""Joint selection: JEST against ClassAct and IID batches, on pairs of icons and their names.

Command:
    classact sweep experiments/figures/jest.py --out=runs/figures

A learner on noisy pairs (30 % of the names shuffled), steered by a reference of curated ones, with the
softmax and the sigmoid loss; by zero-shot accuracy on icons-50. A run's name is its loss, its policy, the
percentage of the scored pairs that is left out, and its seed: `sigmoid-jest-80-0`. The learner's image tower
is Mu_6-1, which scores for `jest`; for `classact` a Mu_1-1 does.
"""

import ml_collections

from classact.experiments.configs import image_text
from classact.experiments.figures import parts
from classact.selection import policies

METRIC = "eval/icons_50/zero_shot_top1"
_NOISY, _CLEAN = "icon_pairs", "icon_pairs?subset=clean"
_LOSSES = {"softmax": "infonce", "sigmoid": "sigmoid"}
_RATIOS = (50, 80)
_STEPS = 800
# The baseline first. By their names `jest_proxy`, `jest_easy` and `jest_hard` can be run as well.
RUNS = tuple(
    f"{loss}-{how}-{seed}"
    for seed in range(3)
    for loss in _LOSSES
    for how in ("uniform", *(f"{policy}-{ratio}" for policy in ("classact", "jest") for ratio in _RATIOS))
)


def get_config(name: str) -> ml_collections.ConfigDict:
    """The configuration of a run, or of a reference: `sigmoid-reference-0`.

    Raises:
        ValueError: for another name.
    """
    loss, policy, ratio, seed = _parsed(name)
    config = image_text.get_icons_config(_CLEAN)
    config.train_data, config.caption_noise = (_CLEAN, 0.0) if policy == "reference" else (_NOISY, 0.3)
    config.eval_data = _NOISY
    config.contrastive.loss = _LOSSES[loss]
    config.steps = _STEPS
    config.evaluation.every = _STEPS // 20
    config.seed = seed
    config.learner.model = config.scorer.model if policy == "reference" else f"vit_{parts.SMALL}"
    if not ratio:
        return config
    config.policy, config.filter_ratio = policy, ratio / 100
    if policies.get(policy).joint:
        # The paper's: its scores are losses, not dot products.
        config.temperature = 1.0
    if policies.get(policy).reference:
        config.reference.checkpoint = f"{loss}-reference-{seed}"
    return config


def baseline(name: str) -> str | None:
    """The uniform run with the same loss and seed."""
    loss, _, ratio, seed = _parsed(name)
    return f"{loss}-uniform-{seed}" if ratio else None


def _parsed(name: str) -> tuple[str, str, int, int]:
    """Loss, policy, percentage left out (0: none) and seed."""
    loss, policy, *rest = name.split("-")
    scored = policy in policies.names() and policies.get(policy).scores
    if (
        loss in _LOSSES
        and (scored or policy in ("uniform", "reference"))
        and len(rest) == 1 + scored
        and all(part.isdigit() for part in rest)
    ):
        return loss, policy, int(rest[0]) if scored else 0, int(rest[-1])
    raise ValueError(f"{name!r}: expected LOSS-POLICY-PERCENT-SEED, such as sigmoid-jest-80-0")
