"""A classifier on any source: Fashion-MNIST, icons, digits, an `.npz`, a folder.

Command:
    classact train --config=experiments/configs/classification.py --workdir=runs/mine \
        --config.train_data=npz:train.npz --config.eval_data=npz:test.npz \
        --config.policy=uniform --config.patch_size=8
"""

import ml_collections

from classact.experiments import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults, with the uniform policy, which needs no reference."""
    config = base.get_config()
    config.policy = "uniform"
    return config
