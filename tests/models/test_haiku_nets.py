import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from classact.models import haiku_nets, registry

SHAPE = (8, 8, 1)
NAMES = ("haiku_mlp", "haiku_mobilenet", "haiku_resnet18", "haiku_resnet34", "haiku_resnet50")


def batch(seed=0, size=6):
    return {"image": np.random.default_rng(seed).integers(0, 256, (size, *SHAPE), dtype=np.uint8)}


def create(name, **options):
    return registry.create(name, num_classes=5, image_shape=SHAPE, **options)


@pytest.fixture(scope="module")
def small():
    """A network with BatchNorm: its variables and its jitted forward pass."""

    def network(pixels, train):
        x = hk.Conv2D(4, 3)(pixels)
        x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(x, train))
        return hk.Linear(5, name="logits")(x.mean((1, 2)))

    model = haiku_nets.from_network("small", SHAPE, network)
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
    return variables, jax.jit(model.apply, static_argnames="train")


def test_running_statistics_start_neutral_and_move_to_the_batch(small):
    variables, apply = small
    averages = variables["state"]
    assert np.all(averages["batch_norm/~/mean_ema"]["average"] == 0)
    assert np.all(averages["batch_norm/~/var_ema"]["average"] == 1)
    _, state = apply(variables, batch(), train=True)
    features = jax.lax.conv_general_dilated(
        batch()["image"] / np.float32(127.5) - 1,
        variables["params"]["conv2_d"]["w"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    features = np.asarray(features) + np.asarray(variables["params"]["conv2_d"]["b"])
    for kind, expected in (("mean", features.mean((0, 1, 2))), ("var", features.var((0, 1, 2)))):
        # Haiku corrects its averages for their start: after one batch, they are that batch's.
        np.testing.assert_allclose(
            state[f"batch_norm/~/{kind}_ema"]["average"].ravel(), expected, rtol=1e-3, atol=1e-5
        )
    assert jax.tree.structure(state) == jax.tree.structure(averages)


def test_scoring_leaves_the_state_unchanged_and_scores_each_example_alone(small):
    variables, apply = small
    trained, state = apply(variables, batch(), train=True)
    variables = {**variables, "state": state}
    whole, after = apply(variables, batch(), train=False)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    neighbours = {"image": np.concatenate([batch()["image"][:1], batch(seed=1)["image"][1:] // 4])}
    other, _ = apply(variables, neighbours, train=False)
    np.testing.assert_allclose(other["embedding"][0], whole["embedding"][0], rtol=1e-4, atol=1e-5)
    mixed, _ = apply(variables, neighbours, train=True)
    assert np.abs(mixed["embedding"][0] - trained["embedding"][0]).max() > 1e-2


def test_the_embedding_is_what_the_head_is_given(small):
    variables, apply = small
    outputs, _ = apply(variables, batch(), train=False)
    head = variables["params"]["logits"]
    assert outputs["embedding"].shape == (6, 4)
    logits = outputs["embedding"] @ head["w"] + head["b"][None]
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)


def test_scores_of_a_deep_net_before_the_first_update_are_finite():
    model = create("haiku_resnet18")
    shapes = jax.eval_shape(model.init, jax.random.key(0))["params"]
    state = jax.jit(lambda key: model.init(key)["state"])(jax.random.key(0))
    assert {module.rpartition("/")[2] for module in state} == {"mean_ema", "var_ema"}
    draw = np.random.default_rng(0)

    def parameter(path, leaf):
        if path[-1].key == "w":
            return (draw.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
        return np.full(leaf.shape, path[-1].key == "scale", np.float32)

    params = jax.tree_util.tree_map_with_path(parameter, shapes)
    outputs, _ = jax.jit(model.apply, static_argnames="train")(
        {"params": params, "state": state}, batch(), train=False
    )
    assert np.isfinite(outputs["logits"]).all() and 1e-3 < np.abs(outputs["embedding"]).max() < 1e3


def test_the_mlp_is_two_products_with_a_relu_between():
    model = create("haiku_mlp", hidden=[7])
    variables = model.init(jax.random.key(0))
    outputs, state = model.apply(variables, batch(), train=True)
    first, second = variables["params"].values()
    pixels = batch()["image"].reshape(6, -1) / 127.5 - 1
    hidden = np.maximum(pixels @ np.asarray(first["w"]) + np.asarray(first["b"]), 0)
    np.testing.assert_allclose(outputs["embedding"], hidden, atol=1e-5)
    logits = hidden @ np.asarray(second["w"]) + np.asarray(second["b"])
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
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


def test_variables_survive_msgpack(small):
    variables, _ = small
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
