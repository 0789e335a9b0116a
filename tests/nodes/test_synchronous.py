"""The oracle learns, and selects as its policy says."""

import jax
import numpy as np
import pytest

from classact.data import specs, stream
from classact.models import registry
from classact.nodes import evaluator, synchronous, training
from classact.selection import losses, policies

TASK = losses.Classification(0.1)
STEPS = 120


def train(policy, batch_size=32, super_batch=64, steps=STEPS, on_step=None, temperature=1.0):
    policy = policies.get(policy)
    data = specs.open_source("digits", "train")
    model = registry.create("haiku_mlp", num_classes=10, image_shape=data.image_shape, hidden=(32,))
    optimizer = training.OptimizerConfig(3e-3, steps, warmup_steps=5)
    trained = {
        name: training.TrainedModel(model, optimizer, {"digits": 1.0}, on_super_batch=name == "reference")
        for name in policy.trained_models
    }
    fixed = {"reference": (model, model.init(jax.random.key(9)))} if policy.reference == "fixed" else {}
    batches = stream.IIDStream(data, super_batch if policy.scores else batch_size, seed=0)
    state = synchronous.train(
        {"digits": synchronous.DataSet(policy, batches, batch_size, temperature, fixed)},
        TASK,
        trained,
        steps=steps,
        seed=0,
        on_step=on_step or (lambda *_: None),
    )
    return model, state


@pytest.mark.parametrize("policy", ["uniform", "hard_learner", "classact", "classact_online"])
def test_it_learns_the_digits(policy):
    model, state = train(policy)
    held_out = evaluator.whole_data_set(specs.open_source("digits", "eval"), 100)
    measure = evaluator.classification_accuracy(model, TASK, held_out)
    for variables in state.variables().values():
        # Chance is a tenth.
        assert measure(variables)["top1"] > 0.7
    assert int(state.step) == STEPS


def test_the_sub_batch_is_selected_by_the_score():
    chosen = []

    def on_step(step, state, metrics, batches):
        batch = batches["digits"]
        assert len(np.unique(batch["id"])) == 8
        assert np.isfinite(float(metrics["train/loss"]))
        chosen.append(batch)

    train("hard_learner", batch_size=8, super_batch=64, steps=6, on_step=on_step, temperature=1e-4)
    # So cold a softmax takes the largest scores: of the first update, those of the initial model.
    data = specs.open_source("digits", "train")
    first = next(stream.IIDStream(data, 64, seed=0))
    model = registry.create("haiku_mlp", num_classes=10, image_shape=data.image_shape, hidden=(32,))
    item = training.TrainedModel(model, training.OptimizerConfig(3e-3, 6, warmup_steps=5), {"digits": 1.0})
    variables = training.init_state({"learner": item}, 0).models["learner"].variables
    outputs, _ = model.apply(variables, first, train=False)
    loss = np.asarray(TASK.act_loss(outputs, first))
    assert set(chosen[0]["id"].tolist()) == set(first["id"][np.argsort(-loss)[:8]].tolist())


def test_the_same_seed_gives_the_same_run():
    weights = [jax.tree.leaves(train("classact", steps=6)[1].models["learner"].params)[0] for _ in range(2)]
    np.testing.assert_array_equal(*weights)
