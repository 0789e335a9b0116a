"""The demonstration of ActiveCLIP: icons and their names, some names shuffled.

Command:
    make demo-clip

which runs this file five times, as `demo_clip.py:PART` for each part of `PARTS`,
and compares the last three.

The noisy data are the icons that ship with the repository with the names that
their authors gave them, 30 % of them shuffled; the clean data are a curated subset of
them with normalised names (`data/icon_pairs.py`). A reference is trained on
each. The learner trains on the noisy data: on IID batches, and on what ActiveCLIP
selects with either reference.

Result to expect (12 minutes of CPU, seed 0): zero-shot top-1 on icons-50 of 5.4 % on IID
data, 13.4 % with the noisy and 18.0 % with the clean reference, and 43 % and 65 % of the compute
saved to the IID run's final value, everything counted. That run has hardly learned by then.
"""

import ml_collections

from classact.experiments.configs import image_text

PARTS = ("reference_noisy", "reference_clean", "uniform", "active_noisy", "active_clean")
_NOISY, _CLEAN = "icon_pairs", "icon_pairs?subset=clean"


def get_config(part: str = "active_clean") -> ml_collections.ConfigDict:
    """Returns the configuration of one part of the demonstration.

    Args:
        part: one of `PARTS`.

    Raises:
        ValueError: for another part.
    """
    if part not in PARTS:
        raise ValueError(f"demo_clip.py:{part}: expected one of {', '.join(PARTS)}")
    kind, _, data = part.partition("_")
    config = image_text.get_icons_config(_CLEAN)
    config.steps = 400
    config.train_data = _CLEAN if part == "reference_clean" else _NOISY
    config.caption_noise = 0.0 if part == "reference_clean" else 0.3
    config.eval_data = _NOISY
    config.evaluation.every = 50
    # The scorers must be much smaller than the learner if the compute is to pay, too.
    config.learner.model = "vit_mu_6_2"
    if kind == "reference":
        config.learner.model = config.scorer.model
        config.steps = 600
        config.evaluation.every = 100
    if kind == "active":
        config.policy = "classact"
        config.reference.checkpoint = f"runs/demo_clip/reference_{data}"
    return config
