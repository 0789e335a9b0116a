"""Contrastive learning on several data sets at once, each with its own selection (A.6).

Command (a reference first, on the curated pairs):
    classact train --config=experiments/configs/demo_clip.py:reference_clean \
        --workdir=runs/demo_clip/reference_clean
    classact train --config=experiments/configs/image_text_sets.py --workdir=runs/sets

Three data sets: noisy pairs that ActiveCLIP selects from, curated pairs that are
trained on as they are, and labelled icons whose class names are the captions. Every
field of one can be overridden: --config.data_sets.noisy.temperature=0.05
"""

import ml_collections

from classact.experiments import base
from classact.experiments.configs import image_text


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    # The models and captions of the reference.
    config = image_text.get_icons_config("icon_pairs?subset=clean")
    config.eval_data = "icon_pairs"
    config.data_sets = {
        "noisy": base.data_set(
            config,
            policy="classact",
            caption_noise=0.3,
            batch_size=64,
            reference={"checkpoint": "runs/demo_clip/reference_clean"},
        ),
        "curated": base.data_set(config, train_data="icon_pairs?subset=clean", batch_size=32),
        "labelled": base.data_set(config, train_data="icons?classes=200", batch_size=32, weight=0.5),
    }
    return config
