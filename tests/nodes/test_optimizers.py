"""Optimisers against the same sums written out in NumPy, and schedules by hand."""

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments import model_config
from classact.nodes import optimizers

PARAMS = {"head": {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3)}}
PARAMS["head"]["bias"] = PARAMS["head"]["bias"].astype(np.float32)
PARAMS["positions"] = np.full((1, 2, 3), 0.5, np.float32)
SHAPES = {"head/kernel": 2, "head/bias": 1, "positions": 3}
MATRICES, KERNELS = {"head/kernel", "positions"}, {"head/kernel"}


def config(**fields):
    return optimizers.OptimizerConfig(**{"learning_rate": 0.1, "steps": 9, "warmup_steps": 2, **fields})


def flat(tree):
    return {optimizers.parameter(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def gradients(step, params=PARAMS):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda array: rng.normal(size=array.shape).astype(np.float32), params)


def run(made, updates=4, params=PARAMS, gradients_of=gradients):
    """What an optimiser makes of the parameters."""
    state = made.init(params)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for step in range(updates):
            changes, state = made.update(gradients_of(step), state, params)
            params = optax.apply_updates(params, changes)
    return flat(params)


def by_hand(own, direction, decayed, updates=4, decay=1e-3):
    """p ← p − η·(direction + λ·p), with what `direction` keeps of a parameter."""
    params = {name: array.astype(np.float64) for name, array in flat(PARAMS).items()}
    kept = {name: {} for name in params}
    rate = own.schedule()
    for step in range(updates):
        for name, gradient in flat(gradients(step)).items():
            change = direction(step, gradient.astype(np.float64), kept[name])
            change = change + (decay * params[name] if name in decayed else 0)
            params[name] = params[name] - float(rate(step)) * change
    return params


def adam(beta1, beta2, epsilon):
    def direction(step, gradient, kept):
        kept["m"] = beta1 * kept.get("m", 0) + (1 - beta1) * gradient
        kept["v"] = beta2 * kept.get("v", 0) + (1 - beta2) * gradient**2
        mean, square = kept["m"] / (1 - beta1 ** (step + 1)), kept["v"] / (1 - beta2 ** (step + 1))
        return mean / (np.sqrt(square) + epsilon)

    return direction


def lion(step, gradient, kept):
    found = np.sign(0.9 * kept.get("m", 0) + 0.1 * gradient)
    kept["m"] = 0.98 * kept.get("m", 0) + 0.02 * gradient
    return found


def momentum(step, gradient, kept):
    kept["m"] = 0.8 * kept.get("m", 0) + gradient
    return kept["m"]


def factored(step, gradient, kept):
    """Of arrays that are too small to be factored: the squares alone, clipped to a root mean square of 1."""
    beta = min(0.999, 1 - (step + 1) ** -0.8)
    kept["v"] = beta * kept.get("v", 0) + (1 - beta) * gradient**2
    change = gradient / np.sqrt(kept["v"])
    change = change / max(1.0, np.sqrt(np.mean(change**2)))
    kept["m"] = 0.9 * kept.get("m", 0) + 0.1 * change
    return kept["m"]


OTHER = {"beta1": 0.7, "beta2": 0.95, "epsilon": 0.1}


@pytest.mark.parametrize(
    ("fields", "direction", "decayed", "tolerance"),
    [
        ({}, adam(0.9, 0.999, 1e-8), MATRICES, 1e-5),
        (
            {"beta1": 0.7, "beta2": 0.95, "epsilon": 0.1, "decayed": "kernels"},
            adam(0.7, 0.95, 0.1),
            KERNELS,
            1e-5,
        ),
        ({"name": "lion", "beta2": 0.98}, lion, MATRICES, 1e-5),
        ({"name": "sgd", "beta1": 0.8}, momentum, MATRICES, 1e-5),
        # Its mean is kept in bfloat16.
        ({"name": "adafactor"}, factored, MATRICES, 5e-3),
    ],
)
@pytest.mark.parametrize("times_rate", [True, False])
def test_an_update_is_that_of_its_paper(fields, direction, decayed, tolerance, times_rate):
    own = config(weight_decay=0.3, decay_times_rate=times_rate, **fields)
    # Not multiplied by the maximum, which is 0.1.
    expected = by_hand(own, direction, decayed, decay=0.3 if times_rate else 3.0)
    for name, array in run(own.make()).items():
        np.testing.assert_allclose(array, expected[name], atol=tolerance, err_msg=name)


def test_large_matrices_are_factored():
    params = {"kernel": np.zeros((32, 40), np.float32)}
    state = config(name="adafactor").make().init(params)
    assert max(leaf.size for leaf in jax.tree.leaves(state) if leaf.dtype == np.float32) == 40
    assert {leaf.shape for leaf in jax.tree.leaves(state) if leaf.size > 40} == {(32, 40)}


def test_the_default_is_plain_adamw():
    """To the bit: what was trained before goes on as it was."""
    own = config(clip_norm=1.0, weight_decay=1e-3)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 9)
    mask = jax.tree.map(lambda array: array.ndim >= 2, PARAMS)
    adamw = optax.adamw(schedule, weight_decay=1e-3, mask=mask)
    plain = optax.chain(optax.clip_by_global_norm(1.0), adamw)
    traced = []
    for made in (own.make(), plain):
        state = made.init(PARAMS)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            traced.append(str(jax.make_jaxpr(made.update)(PARAMS, state, PARAMS)))
    assert traced[0] == traced[1]
    assert jax.tree.structure(own.make().init(PARAMS)) == jax.tree.structure(plain.init(PARAMS))


@given(st.sampled_from(["rsqrt", "constant"]), st.integers(0, 20), st.integers(1, 60), st.integers(0, 30))
def test_a_rate_rises_falls_and_cools_down(shape, warmup, more, cooldown):
    steps = warmup + more
    cooldown = min(cooldown, more)
    own = config(shape=shape, steps=steps, warmup_steps=warmup, cooldown_steps=cooldown)
    # Of one length, so that it is compiled once.
    found = np.broadcast_to(own.schedule()(np.arange(81)), 81)
    for step, rate in enumerate(found[: steps + 1]):
        expected = min(step / warmup, 1.0) if warmup else 1.0
        if shape == "rsqrt" and step > max(warmup, 1):
            expected = (max(warmup, 1) / step) ** 0.5
        if cooldown and step > steps - cooldown:
            expected *= (steps - step) / cooldown
        assert rate == pytest.approx(0.1 * expected, abs=1e-6)


def test_what_is_frozen_stays_and_has_no_part_in_the_norm():
    own = config(clip_norm=1.0, rates={"head/kernel": 1.0, "head/bias": 0.5, "positions": 0.0})
    huge = lambda step: {**gradients(step), "positions": np.full((1, 2, 3), 1e9, np.float32)}  # noqa: E731
    found, alone = (run(own.make(), gradients_of=of) for of in (huge, gradients))
    np.testing.assert_array_equal(found["positions"], PARAMS["positions"])
    np.testing.assert_array_equal(found["head/kernel"], alone["head/kernel"])
    assert not any(leaf.shape == (1, 2, 3) for leaf in jax.tree.leaves(own.make().init(PARAMS)))


def test_a_rate_multiplies_a_change_and_its_decay():
    every = {name: 0.25 if name == "head/kernel" else 1.0 for name in SHAPES}
    whole, part = (run(config(rates=rates).make(), updates=2) for rates in ({}, every))
    before = flat(PARAMS)
    # The first update's rate is 0.
    for name, factor in every.items():
        change = (part[name] - before[name]) / (whole[name] - before[name])
        np.testing.assert_allclose(change, factor, rtol=1e-3)


def test_layers_learn_the_less_the_earlier_they_are():
    names = {
        "patch_embedding/kernel": 2, "cls": 3, "positions": 3, "block_0/mlp/kernel": 2,
        "block_1/norm/scale": 1, "norm/scale": 1, "head/kernel": 2,
    }  # fmt: skip
    assert list(optimizers.layer_rates(names, 0.5).values()) == [0.125, 0.125, 0.125, 0.25, 0.5, 1, 1]
    both = {
        **{f"image/{name}": axes for name, axes in names.items()},
        "text/tokens/embedding": 2, "text/positions": 2, "text/block_0/mlp/kernel": 2,
        "text/projection/kernel": 2, "log_scale": 0, "bias": 0,
    }  # fmt: skip
    found = optimizers.layer_rates(both, 0.5)
    assert list(found.values())[:7] == [0.125, 0.125, 0.125, 0.25, 0.5, 1, 1]
    assert list(found.values())[7:] == [0.25, 0.25, 0.5, 1, 1, 1]
    with pytest.raises(ValueError, match="no numbered blocks"):
        optimizers.layer_rates({"linear/w": 2}, 0.5)


@pytest.mark.parametrize("field", ["name", "shape", "decayed"])
def test_an_unknown_word_is_told(field):
    with pytest.raises(ValueError, match=f"{field}='adam': expected one of"):
        config(**{field: "adam"})


def test_the_configuration_knows_all_words():
    for name in ("SCHEDULES", "DECAYED"):
        assert getattr(model_config, name) == getattr(optimizers, name)
    assert model_config.OPTIMIZERS == optimizers.NAMES
