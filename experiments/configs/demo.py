"""The demonstration: icons with label noise, a reference, IID and ClassAct.

Command:
    make demo

which runs this file three times, as `demo.py:reference`, `demo.py:uniform` and
`demo.py:classact`, and compares the last two.
"""

import ml_collections

from classact.experiments import base


def get_config(part: str = "classact") -> ml_collections.ConfigDict:
    """Returns the configuration of one part.

    Args:
        part: "reference", "uniform" or "classact".
    """
    config = base.get_config()
    config.train_data = "icons"
    config.label_noise = 0.3
    config.steps = 1200
    config.evaluation.every = 50
    config.policy = "classact" if part == "classact" else "uniform"
    if part == "reference":
        config.learner.model = config.scorer.model
    if part == "classact":
        config.reference.checkpoint = "runs/demo/reference"
    return config
