"""Contrastive learning on any pairs of images and texts (sections 3.4, A.3).

Command:
    classact train --config=experiments/configs/image_text.py --workdir=runs/pairs \
        --config.train_data='tar:pairs/train-{000..099}.tar' --config.eval_data='tar:pairs/eval-*.tar' \
        --config.policy=uniform

A reference is such a run of a small model on curated pairs:

    classact train --config=experiments/configs/image_text.py --workdir=runs/pairs_reference \
        --config.train_data='tar:curated/*.tar' --config.eval_data='tar:pairs/eval-*.tar' \
        --config.learner.model=vit_mu_1_1
    classact train --config=experiments/configs/image_text.py --workdir=runs/pairs_active \
        --config.train_data='tar:pairs/train-{000..099}.tar' --config.eval_data='tar:pairs/eval-*.tar' \
        --config.policy=classact --config.reference.checkpoint=runs/pairs_reference

Captions are read with CLIP's vocabulary, 77 tokens each, unless all training data are the icons
that ship with classact; `--config.contrastive.tokenizer` and `context_length` name others, and the
run's first lines say how many captions they cut.

For several data sets at once see `image_text_sets.py`.
"""

import ml_collections

from classact.experiments import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults of the contrastive task: icons with their names, the uniform policy."""
    config = base.get_config()
    config.task = "contrastive"
    config.policy = "uniform"
    config.train_data = "icon_pairs"
    config.scorer.model = "vit_mu_1_1"
    config.batch_size = 128
    # Scores are differences of two dot products of unit vectors.
    config.temperature = 0.1
    config.clip_norm = 1.0
    config.evaluation.every = 100
    return config


def get_icons_config(clean: str) -> ml_collections.ConfigDict:
    """What the experiments on icons share: models, selection and evaluators.

    Args:
        clean: the source of curated pairs, among which retrieval is measured.
    """
    config = get_config()
    # Also of the larger set that `classact data icons` makes, as shards.
    config.contrastive.tokenizer = "icons"
    config.contrastive.context_length = 12
    config.temperature = 0.03
    # Captions are two or three words.
    config.learner.text_model = "text_mu_1_1"
    config.learner.options = config.scorer.options = {"pool": "mean"}
    config.evaluation.evaluators = {
        "retrieval": {"kind": "retrieval", "data": clean, "distinct": True},
        "icons_50": {"kind": "zero_shot", "data": "icons?classes=50", "templates": "icons"},
    }
    return config
