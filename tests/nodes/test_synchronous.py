"""The oracle learns, and selects as its policy says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.data import specs, stream
from classact.models import registry
from classact.nodes import evaluator, synchronous, training
from classact.nodes.errors import DivergedError
from classact.selection import losses, policies

TASK = losses.Classification(0.1)
STEPS = 120


def train(
    policy,
    batch_size=32,
    super_batch=64,
    steps=STEPS,
    on_step=None,
    temperature=1.0,
    learning_rate=3e-3,
    warmup=5,
    **options,
):
    policy = policies.get(policy) if isinstance(policy, str) else policy
    data = specs.open_source("digits", "train")
    model = registry.create("haiku_mlp", num_classes=10, image_shape=data.image_shape, hidden=(32,))
    optimizer = training.OptimizerConfig(learning_rate, steps, warmup_steps=min(warmup, steps - 1))
    trained = {
        name: training.TrainedModel(model, optimizer, {"digits": 1.0}, on_super_batch=name == "reference")
        for name in policy.trained_models
    }
    fixed = {"reference": (model, model.init(jax.random.key(9)))} if policy.reference == "fixed" else {}
    batches = stream.IIDStream(data, super_batch if policy.scores else batch_size, seed=0)
    state = synchronous.train(
        {"digits": synchronous.DataSet(policy, batches, batch_size, temperature, fixed, **options)},
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


def scored(*bad):
    """A policy whose scores are not finite at these places of the super-batch."""
    places = jnp.zeros(64, bool).at[jnp.array(bad, int)].set(True)
    uniform = lambda online, reference: jnp.where(places, jnp.inf, 0.0 * online["loss"])  # noqa: E731
    return dataclasses.replace(policies.get("hard_learner"), name="scored", score=uniform)


def test_examples_without_a_finite_score_are_not_drawn_and_a_few_are_tolerated():
    bad, drawn = (0, 7, 63), []

    def on_step(step, state, metrics, batches):
        drawn.append(batches["digits"]["id"])

    train(scored(*bad), batch_size=61, super_batch=64, steps=3, on_step=on_step)
    seen = stream.IIDStream(specs.open_source("digits", "train"), 64, seed=0)
    for ids, read in zip(drawn, seen, strict=False):
        assert set(ids) == set(np.delete(read["id"], bad))
    # Ten are, in any run; of 4 · 64 one per cent is less.
    with pytest.raises(DivergedError, match="diverged at step 3: 12 of 256 scores are NaN or infinite"):
        train(scored(*bad), batch_size=32, steps=8)


def test_too_few_scores_to_draw_a_batch_from_end_the_run():
    with pytest.raises(DivergedError, match=r"step 0: 3 of the 64 scores .* too many to draw 62"):
        train(scored(0, 7, 63), batch_size=62, steps=8)


def test_a_share_of_such_scores_that_is_tolerated_is_the_configured_one():
    train(scored(0, 7, 63), batch_size=32, steps=8, max_nonfinite_share=0.05)


@pytest.mark.parametrize(("learning_rate", "steps", "step"), [(1e30, 9, 2), (1e39, 1, 1)])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_run_that_diverges_gives_no_state(learning_rate, steps, step):
    told = []
    with pytest.raises(DivergedError, match=f"diverged at step {step}: "):
        train(
            "uniform",
            steps=steps,
            warmup=0,
            learning_rate=learning_rate,
            on_step=lambda *a: told.append(a[0]),
        )
    # One update behind at most, and the last one is never told.
    assert told == list(range(1, min(step + 1, steps)))


def test_the_same_seed_gives_the_same_run():
    weights = [jax.tree.leaves(train("classact", steps=6)[1].models["learner"].params)[0] for _ in range(2)]
    np.testing.assert_array_equal(*weights)
