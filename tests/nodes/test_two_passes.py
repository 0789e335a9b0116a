"""A loss of all pairs of a batch, from one part after another, against the batch in one piece."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.models import registry
from classact.nodes import training, two_passes
from classact.selection import contrastive

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import mesh_cases


@pytest.mark.parametrize(("loss", "parts"), [("infonce", 8), ("sigmoid", 8), ("infonce", 32)])
def test_loss_gradients_and_metrics_are_those_of_the_whole_batch(loss, parts):
    found, expected = (mesh_cases.whole_gradients(None, loss, number, 0.25) for number in (parts, 1))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    # A bias of all similarities is nothing to a softmax.
    assert (np.abs(found[0]["bias"]) > 0.01) == (loss == "sigmoid")


def drawing():
    """Two towers that draw and have running statistics: the mean of each batch that they saw."""

    def apply(variables, examples, *, train, rng=None):
        own, seen = variables["params"], variables["state"]["seen"]
        noise = jax.random.normal(rng, examples["image"].shape)
        images = (examples["image"] + noise) * own["w"][None]
        outputs = {"image_embedding": images, "text_embedding": examples["text"]}
        state = {"seen": 0.5 * seen + examples["image"].mean(0)}
        return {**outputs, "scale": jnp.float32(1.0), "bias": jnp.float32(0.0)}, state

    variables = {"params": {"w": jnp.ones(2)}, "state": {"seen": jnp.zeros(2)}}
    return registry.Model("drawing", lambda key: variables, apply)


def test_both_passes_draw_the_same_and_statistics_are_updated_once():
    model, rng = drawing(), np.random.default_rng(0)
    pairs = {name: rng.normal(size=(6, 2)).astype(np.float32) for name in ("image", "text")}
    task, key, variables = contrastive.Contrastive(), jax.random.key(3), model.init(None)

    def by_hand(params):
        images = [
            model.apply(
                {**variables, "params": params},
                {name: array[part::3] for name, array in pairs.items()},
                train=True,
                rng=jax.random.fold_in(key, part),
            )[0]["image_embedding"]
            for part in range(3)
        ]
        # Every third example went together.
        joined = jnp.stack(images, axis=1).reshape(6, 2)
        outputs = {"image_embedding": joined, "text_embedding": pairs["text"], "scale": 1.0, "bias": 0.0}
        return task.learn_loss(outputs, pairs)

    loss, expected = jax.jit(jax.value_and_grad(by_hand))(variables["params"])
    compute = jax.jit(two_passes.differentiate, static_argnums=(0, 1, 2, 3))
    found, state, (own, _) = compute(model, task, None, 3, variables, pairs, key)
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-5)
    np.testing.assert_allclose(own, loss, rtol=1e-5)
    means = [pairs["image"][part::3].mean(0) for part in range(3)]
    np.testing.assert_allclose(state["seen"], means[0] / 4 + means[1] / 2 + means[2], rtol=1e-5)


def deep(layers=8, width=32):
    """A tower that keeps much of an image for its backward pass, and gives little."""

    def apply(variables, examples, *, train, rng=None):
        x = examples["image"]
        for weights in variables["params"]["layers"]:
            x = jnp.tanh(x @ weights[None])
        outputs = {"image_embedding": x.mean(1)[:, :4], "text_embedding": examples["text"]}
        return {**outputs, "scale": jnp.float32(1.0), "bias": jnp.float32(0.0)}, variables["state"]

    weights = 0.3 * np.random.default_rng(2).normal(size=(layers, width, width)).astype(np.float32)
    return registry.Model(
        "deep", lambda _: {"params": {"layers": [*map(jnp.asarray, weights)]}, "state": {}}, apply
    )


def test_an_update_weighs_data_sets_and_needs_less_memory_than_the_whole_batch():
    rng = np.random.default_rng(0)
    shapes = {"image": (16, 32), "text": (4,)}
    batches = {
        data_set: {name: rng.normal(size=(rows, *shape)).astype(np.float32) for name, shape in shapes.items()}
        for data_set, rows in (("noisy", 64), ("clean", 32))
    }
    optimizer = training.OptimizerConfig(learning_rate=1e-2, steps=20, warmup_steps=0, name="sgd")
    trained = {"learner": training.TrainedModel(deep(), optimizer, {"noisy": 1.0, "clean": 3.0})}
    found, memory = {}, {}
    for parts in (1, 8):
        update = training.make_update(trained, contrastive.Contrastive(), None, parts, whole_loss=True)
        compiled = update.lower(training.state_shapes(trained), batches, {}).compile()
        memory[parts] = compiled.memory_analysis().temp_size_in_bytes
        state, metrics = compiled(training.init_state(trained, 0), batches, {})
        found[parts] = jax.tree.leaves((state.variables(), metrics))
    for whole, cut in zip(*found.values(), strict=True):
        np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)
    assert memory[8] < memory[1] / 2, memory
