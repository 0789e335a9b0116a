import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from classact.models import registry

SHAPE = (8, 8, 1)
NAMES = ("haiku_mlp", "haiku_mobilenet", "haiku_resnet18", "haiku_resnet34", "haiku_resnet50")


def batch(seed=0, size=6):
    return {"image": np.random.default_rng(seed).integers(0, 256, (size, *SHAPE), dtype=np.uint8)}


def create(name, **options):
    return registry.create(name, num_classes=5, image_shape=SHAPE, **options)


@pytest.fixture(scope="module")
def resnet():
    """ResNet-18: its variables, and its jitted forward pass."""
    model = create("haiku_resnet18")
    variables = jax.device_get(model.init(jax.random.key(0)))
    return variables, jax.jit(model.apply, static_argnames="train")


def test_running_statistics_move_in_training_towards_the_batch(resnet):
    variables, apply = resnet
    _, state = apply(variables, batch(), train=True)
    name = "res_net18/~/initial_batchnorm/~/mean_ema"
    assert jax.tree.structure(state) == jax.tree.structure(variables["state"])
    assert not np.any(variables["state"][name]["average"])
    assert np.all(variables["state"]["res_net18/~/initial_batchnorm/~/var_ema"]["average"] == 1)
    assert np.abs(state[name]["average"]).max() > 1e-2
    # Haiku corrects its averages for their start: after one batch, they are that batch's.
    _, again = apply({**variables, "state": state}, batch(), train=True)
    np.testing.assert_allclose(again[name]["average"], state[name]["average"], rtol=1e-4, atol=1e-6)


def test_scoring_leaves_the_state_unchanged_and_scores_each_example_alone(resnet):
    variables, apply = resnet
    trained, state = apply(variables, batch(), train=True)
    variables = {**variables, "state": state}
    whole, after = apply(variables, batch(), train=False)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    neighbours = {"image": np.concatenate([batch()["image"][:1], batch(seed=1)["image"][1:]])}
    other, _ = apply(variables, neighbours, train=False)
    np.testing.assert_allclose(other["embedding"][0], whole["embedding"][0], rtol=1e-4, atol=1e-5)
    mixed, _ = apply(variables, neighbours, train=True)
    assert np.abs(mixed["embedding"][0] - trained["embedding"][0]).max() > 1e-2


def test_scores_before_the_first_update_are_finite(resnet):
    variables, apply = resnet
    outputs, _ = apply(variables, batch(), train=False)
    assert np.isfinite(outputs["logits"]).all() and np.isfinite(outputs["embedding"]).all()
    assert 0 < np.abs(outputs["embedding"]).max() < 1e3


def test_the_embedding_is_what_the_head_is_given(resnet):
    variables, apply = resnet
    head = variables["params"]["res_net18/~/logits"]
    head = {"w": np.random.default_rng(0).normal(size=head["w"].shape).astype(np.float32), "b": head["b"] + 1}
    params = {**variables["params"], "res_net18/~/logits": head}
    outputs, _ = apply({**variables, "params": params}, batch(), train=False)
    np.testing.assert_allclose(outputs["logits"], outputs["embedding"] @ head["w"] + head["b"], rtol=1e-3)


def test_the_mlp_is_two_products_with_a_relu_between():
    model = create("haiku_mlp", hidden=[7])
    variables = model.init(jax.random.key(0))
    outputs, state = model.apply(variables, batch(), train=True)
    first, second = variables["params"].values()
    pixels = batch()["image"].reshape(6, -1) / 127.5 - 1
    hidden = np.maximum(pixels @ np.asarray(first["w"]) + first["b"], 0)
    np.testing.assert_allclose(outputs["embedding"], hidden, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], hidden @ np.asarray(second["w"]) + second["b"], atol=1e-5)
    assert state == {}


@pytest.mark.parametrize("name", NAMES)
def test_every_net_has_the_registrys_interface(name):
    model = create(name)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    assert set(variables) == {"params", "state"}
    for part in variables.values():
        assert type(part) is dict and all(type(leaves) is dict for leaves in part.values())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables["params"]))
    assert bool(variables["state"]) == (name != "haiku_mlp")
    for train in (True, False):
        outputs, state = jax.eval_shape(lambda v, b, t=train: model.apply(v, b, train=t), variables, batch())
        assert outputs["logits"].shape == (6, 5) and outputs["logits"].dtype == jnp.float32
        width = {"haiku_mlp": 512, "haiku_mobilenet": 1024, "haiku_resnet50": 2048}.get(name, 512)
        assert outputs["embedding"].shape == (6, width) and outputs["embedding"].dtype == jnp.float32
        assert jax.tree.structure(state) == jax.tree.structure(variables["state"])


def test_variables_survive_msgpack(resnet):
    variables, _ = resnet
    restored = serialization.msgpack_restore(serialization.msgpack_serialize(variables))
    jax.tree.map(np.testing.assert_array_equal, restored, variables)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"hidden=\(\)"):
        create("haiku_mlp", hidden=())
    with pytest.raises(ValueError, match="3×3 pixels"):
        registry.create("haiku_mobilenet", num_classes=5, image_shape=(2, 8, 1))
    with pytest.raises(ValueError, match="'haiku_mlp' takes images"):
        model = create("haiku_mlp")
        model.apply(model.init(jax.random.key(0)), {"image": np.zeros((1, 4, 4, 1), np.uint8)}, train=False)
