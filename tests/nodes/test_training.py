"""One update against the same computation written out with optax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from classact.models import registry
from classact.nodes import training
from classact.selection import contrastive, losses

ONE = {"digits": 1.0}


def batch(size=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, 2, 2, 1), dtype=np.uint8),
        "label": rng.integers(0, 3, size).astype(np.int32),
    }


def config(**fields):
    return training.OptimizerConfig(**{"learning_rate": 0.1, "steps": 20, "warmup_steps": 0, **fields})


def loss_of(params, data):
    """Eq. 8 with smoothing 0.1, in a form of its own."""
    pixels = data["image"].reshape(len(data["label"]), -1) / 255.0
    logits = pixels @ params["w"] + params["b"][None]
    targets = np.full((len(data["label"]), 3), 0.1 / 3)
    targets[np.arange(len(targets)), data["label"]] += 0.9
    return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()


def expected_params(params, data, learning_rate, updates=1, clip=None):
    """AdamW by optax with a plain learning rate; decay on matrices only."""
    mask = {"w": True, "b": False}
    adamw = optax.adamw(learning_rate, weight_decay=1e-3, mask=mask)
    optimizer = optax.chain(optax.clip_by_global_norm(clip), adamw) if clip else adamw

    # Compiled as one: its many small operations take longer one by one.
    @jax.jit
    def step(params, state):
        gradients = jax.grad(loss_of)(params, data)
        # As Optax must be run; see `training.make_update`.
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, change), state

    state = jax.jit(optimizer.init)(params)
    for _ in range(updates):
        params, state = step(params, state)
    return params


def assert_close(found, expected):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def run_update(trained, sub, super_batch=None, seed=0, updates=1):
    state = training.init_state(trained, seed)
    first = jax.device_get(state.variables())
    update = training.make_update(trained, losses.Classification(0.1))
    for _ in range(updates):
        state, metrics = update(state, {"digits": sub}, {"digits": super_batch} if super_batch else {})
    return first, state, metrics


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_an_update_is_one_adamw_step(linear_model, clip):
    trained = {"learner": training.TrainedModel(linear_model, config(clip_norm=clip), ONE)}
    data = batch()
    first, state, metrics = run_update(trained, data)
    params = first["learner"]["params"]
    assert_close(state.models["learner"].params, expected_params(params, data, 0.1, clip=clip or None))
    assert int(state.step) == 1
    assert float(metrics["train/loss"]) == pytest.approx(float(loss_of(params, data)), rel=1e-5)
    logits = (data["image"].reshape(6, -1) / 255.0) @ params["w"] + params["b"][None]
    assert float(metrics["train/top1"]) == pytest.approx(np.mean(logits.argmax(-1) == data["label"]))


def test_updates_follow_the_schedule(linear_model):
    optimizer = config(steps=8, warmup_steps=2)
    trained = {"learner": training.TrainedModel(linear_model, optimizer, ONE)}
    # Up in a straight line, then half a cosine to zero at the last step.
    rates = [0.0, 0.05, 0.1, *(0.05 * (1 + np.cos(np.pi * i / 6)) for i in range(1, 7))]
    np.testing.assert_allclose([optimizer.schedule()(i) for i in range(9)], rates, atol=1e-8)
    first, state, _ = run_update(trained, batch(), updates=5)
    schedule = lambda count: jnp.asarray(rates)[count]  # noqa: E731
    expected = expected_params(first["learner"]["params"], batch(), schedule, updates=5)
    assert_close(state.models["learner"].params, expected)


def test_the_learner_does_not_depend_on_the_policy(linear_model):
    item = training.TrainedModel(linear_model, config(), ONE)
    alone = training.init_state({"learner": item}, seed=3)
    together = training.init_state({"learner": item, "online": item, "reference": item}, seed=3)
    np.testing.assert_array_equal(alone.models["learner"].params["w"], together.models["learner"].params["w"])
    weights = [np.asarray(model.params["w"]) for model in together.models.values()]
    # Models of one architecture start differently all the same, and so do seeds.
    assert not np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[1], weights[2])
    other = training.init_state({"learner": item}, seed=4)
    assert not np.array_equal(weights[0], other.models["learner"].params["w"])


def test_each_model_learns_from_its_own_loss_and_data(linear_model):
    trained = {
        "learner": training.TrainedModel(linear_model, config(), ONE),
        "online": training.TrainedModel(linear_model, config(), ONE),
        # Algorithm 2: twice the learning rate, on the super-batch.
        "reference": training.TrainedModel(linear_model, config(learning_rate=0.2), ONE, on_super_batch=True),
    }
    sub, super_batch = batch(seed=1), batch(size=60, seed=2)
    first, state, metrics = run_update(trained, sub, super_batch)
    for name, data, rate in (("learner", sub, 0.1), ("online", sub, 0.1), ("reference", super_batch, 0.2)):
        params = first[name]["params"]
        assert_close(state.models[name].params, expected_params(params, data, rate))
        found = metrics["train/loss" if name == "learner" else f"train/{name}_loss"]
        assert float(found) == pytest.approx(float(loss_of(params, data)), rel=1e-5)


def test_a_missing_super_batch_is_named(linear_model):
    trained = {"reference": training.TrainedModel(linear_model, config(), ONE, on_super_batch=True)}
    with pytest.raises(ValueError, match="'reference' learns from super-batches of digits"):
        run_update(trained, batch())


def test_the_loss_of_several_data_sets_is_their_weighted_mean(linear_model):
    weights = {"noisy": 1.0, "clean": 3.0}
    trained = {"learner": training.TrainedModel(linear_model, config(), weights)}
    batches = {"noisy": batch(seed=1), "clean": batch(size=4, seed=2)}
    state = training.init_state(trained, 0)
    params = jax.device_get(state.models["learner"].params)
    state, metrics = training.make_update(trained, losses.Classification(0.1))(state, batches, {})

    def mean_loss(params):
        return (loss_of(params, batches["noisy"]) + 3 * loss_of(params, batches["clean"])) / 4

    optimizer = optax.adamw(0.1, weight_decay=1e-3, mask={"w": True, "b": False})

    @jax.jit
    def expected(params):
        gradients = jax.grad(mean_loss)(params)
        with jax.numpy_dtype_promotion("standard"):
            change, _ = optimizer.update(gradients, optimizer.init(params), params)
        return optax.apply_updates(params, change)

    assert_close(state.models["learner"].params, expected(params))
    assert float(metrics["train/loss"]) == pytest.approx(float(mean_loss(params)), rel=1e-5)
    for name, data in batches.items():
        assert float(metrics[f"train/{name}/loss"]) == pytest.approx(float(loss_of(params, data)), rel=1e-5)


def test_a_model_learns_only_from_its_data_sets(linear_model):
    item = training.TrainedModel(linear_model, config(), {"clean": 2.0})
    batches = {"noisy": batch(seed=1), "clean": batch(size=4, seed=2)}
    state = training.init_state({"learner": item}, 0)
    params = jax.device_get(state.models["learner"].params)
    state, metrics = training.make_update({"learner": item}, losses.Classification(0.1))(state, batches, {})
    assert_close(state.models["learner"].params, expected_params(params, batches["clean"], 0.1))
    assert "train/clean/loss" not in metrics


def test_the_state_is_donated(linear_model):
    trained = {"learner": training.TrainedModel(linear_model, config(), ONE)}
    state = training.init_state(trained, 0)
    weights = state.models["learner"].params["w"]
    training.make_update(trained, losses.Classification())(state, {"digits": batch()}, {})
    assert weights.is_deleted()


def batch_norm():
    """A model with running statistics and a draw, as those of Haiku have."""

    def init(key):
        params = {"w": jax.random.normal(key, (4, 3)), "b": jnp.zeros(3)}
        return {"params": params, "state": {"mean": jnp.zeros(4)}}

    def apply(variables, data, *, train, rng=None):
        pixels = data["image"].reshape(data["image"].shape[0], -1).astype(jnp.float32) / 255.0
        mean = pixels.mean(0) if train else variables["state"]["mean"]
        state = {"mean": 0.9 * variables["state"]["mean"] + 0.1 * mean} if train else variables["state"]
        noise = jax.random.normal(rng, (3,)) if train else jnp.zeros(3)
        logits = (pixels - mean[None]) @ variables["params"]["w"] + (variables["params"]["b"] + noise)[None]
        return {"logits": logits, "embedding": pixels}, state

    return registry.Model("batch_norm", init, apply)


def test_running_statistics_are_updated_and_keys_differ_by_step():
    trained = {"learner": training.TrainedModel(batch_norm(), config(learning_rate=1e-9), ONE)}
    data = batch()
    mean = data["image"].reshape(6, -1).mean(0) / 255.0
    _, state, first = run_update(trained, data)
    np.testing.assert_allclose(state.models["learner"].state["mean"], 0.1 * mean, rtol=1e-5)
    _, state, second = run_update(trained, data, updates=2)
    np.testing.assert_allclose(state.models["learner"].state["mean"], 0.19 * mean, rtol=1e-5)
    # The parameters barely moved: the loss changed by the random numbers.
    assert abs(float(first["train/loss"]) - float(second["train/loss"])) > 1e-4


def test_micro_batches_give_the_whole_batchs_gradient(linear_model):
    weights = {"noisy": 1.0, "clean": 3.0}
    trained = {
        "learner": training.TrainedModel(linear_model, config(clip_norm=0.01), weights),
        "reference": training.TrainedModel(linear_model, config(), weights, on_super_batch=True),
    }
    sub = {"noisy": batch(12, seed=1), "clean": batch(6, seed=2)}
    found = {}
    for accumulation in (1, 2, 6):
        update = training.make_update(trained, losses.Classification(0.1), accumulation=accumulation)
        found[accumulation] = update(training.init_state(trained, 0), sub, sub)
    whole, *others = (
        jax.tree.leaves((state.variables(), [model.opt_state for model in state.models.values()], metrics))
        for state, metrics in found.values()
    )
    for cut in others:
        for a, b in zip(whole, cut, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_a_micro_batch_has_its_own_negatives():
    rng = np.random.default_rng(0)
    pairs = {name: rng.normal(size=(4, 2)).astype(np.float32) for name in ("image", "text")}

    def apply(variables, data, *, train, rng=None):
        weights = variables["params"]["w"][None]
        outputs = {f"{name}_embedding": data[name] * weights for name in ("image", "text")}
        return {**outputs, "scale": jnp.float32(1.0), "bias": jnp.float32(0.0)}, variables["state"]

    model = registry.Model("pairs", lambda key: {"params": {"w": jnp.ones(2)}, "state": {}}, apply)
    trained = {"learner": training.TrainedModel(model, config(), ONE)}
    task = contrastive.Contrastive()
    _, metrics = training.make_update(trained, task, accumulation=2)(
        training.init_state(trained, 0), {"digits": pairs}, {}
    )
    # Every second example goes together.
    variables = {"params": {"w": np.ones(2, np.float32)}, "state": {}}
    expected = [
        task.learn_loss({**apply(variables, part, train=True)[0]}, part)
        for part in ({name: array[first::2] for name, array in pairs.items()} for first in range(2))
    ]
    assert float(metrics["train/loss"]) == pytest.approx(float(np.mean(expected)), rel=1e-5)


def test_running_statistics_follow_each_micro_batch():
    trained = {"learner": training.TrainedModel(batch_norm(), config(learning_rate=1e-9), ONE)}
    data = batch()
    pixels = data["image"].reshape(6, -1) / 255.0
    update = training.make_update(trained, losses.Classification(0.1), accumulation=2)
    state, _ = update(training.init_state(trained, 0), {"digits": data}, {})
    expected = 0.9 * 0.1 * pixels[0::2].mean(0) + 0.1 * pixels[1::2].mean(0)
    np.testing.assert_allclose(state.models["learner"].state["mean"], expected, rtol=1e-5)


def test_haiku_batch_norm_is_updated():
    model = registry.create("haiku_resnet18", num_classes=3, image_shape=(8, 8, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert any("ema" in name for name in shapes["state"])
    trained = {"learner": training.TrainedModel(model, config(), ONE)}
    update = training.make_update(trained, losses.Classification())
    data = {"image": np.zeros((2, 8, 8, 1), np.uint8), "label": np.zeros(2, np.int32)}
    state = training.state_shapes(trained)
    after, _ = jax.eval_shape(update, state, {"digits": data}, {})
    # The trained state has the structure of the first, so that one compiled update serves all.
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert [leaf.shape for leaf in jax.tree.leaves(after)] == [leaf.shape for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"steps": 0},
        {"warmup_steps": 20},
        {"warmup_steps": -1},
        {"weight_decay": -1.0},
        {"clip_norm": -1.0},
    ],
)
def test_bad_optimiser_values_are_named(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        config(**fields)


def test_each_update_ends_within_the_models_bounds(linear_model):
    def project(params):
        return {**params, "b": jnp.clip(params["b"], -0.01, 0.01)}

    free = {"learner": training.TrainedModel(linear_model, config(), ONE)}
    bounded = {
        "learner": training.TrainedModel(dataclasses.replace(linear_model, project=project), config(), ONE)
    }
    _, state, _ = run_update(bounded, batch(), updates=2)
    found = jax.device_get(state.models["learner"].params)
    _, unbounded, _ = run_update(free, batch(), updates=1)
    assert np.abs(unbounded.models["learner"].params["b"]).max() > 0.05
    assert np.abs(found["b"]).max() == np.float32(0.01)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63])
def test_a_seed_that_is_anothers_is_refused(linear_model, seed):
    trained = {"learner": training.TrainedModel(linear_model, config(), ONE)}
    with pytest.raises(ValueError, match=f"seed={seed}"):
        training.init_state(trained, seed)
