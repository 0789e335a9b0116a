"""Digits, and a run on them, which several tests look at."""

import json

import pytest
from on_digits import open_train, resolved

from classact.launch.assembly.parts import learning, shapes
from classact.nodes import checkpoints, training


@pytest.fixture(scope="session")
def digits():
    return shapes.data_shape(resolved(), open_train())


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory, digits):
    """A run of vit_mu_1_1 on digits that has saved its first state."""
    run = tmp_path_factory.mktemp("reference")
    chosen = resolved()
    (run / "config.json").write_text(json.dumps(chosen.to_dict()))
    checkpointer = checkpoints.Checkpointer(run / "checkpoints", classes=digits.classes)
    checkpointer.save(1, training.init_state(learning.trained_models(chosen, digits), 0))
    checkpointer.close()
    return run
