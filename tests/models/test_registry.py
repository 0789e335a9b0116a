import types

import jax
import jax.numpy as jnp
import pytest

from classact.models import registry

SHAPE = (28, 28, 1)


def build_constant(name, num_classes, image_shape, patch_size, scale=1.0):
    """A user's model: logits that depend on nothing but its parameter."""

    def init(key):
        return {"params": {"bias": scale * jnp.ones(num_classes)}, "state": {}}

    def apply(variables, batch, *, train, rng=None):
        logits = jnp.tile(variables["params"]["bias"], (len(batch["image"]), 1))
        return {"logits": logits, "embedding": logits}, variables["state"]

    return registry.Model(name, init, apply)


@pytest.fixture
def user_models(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def test_names_hold_every_row_of_table_4_and_the_haiku_nets():
    mu = ("6_3", "12_2", "6_2", "12_1", "6_1", "3_1", "2_1", "1_1")
    expected = {"vit_l", "vit_b", "vit_s", "vit_ti", *(f"vit_mu_{row}" for row in mu)}
    expected |= {"haiku_mlp", "haiku_mobilenet"} | {f"haiku_resnet{depth}" for depth in (18, 34, 50)}
    assert expected <= set(registry.names())
    assert list(registry.names()) == sorted(registry.names())


def test_an_unknown_name_fails_with_the_nearest_ones():
    with pytest.raises(ValueError, match=r"unknown model 'vit_mu_21'.*did you mean.*'vit_mu_2_1'"):
        registry.create("vit_mu_21", num_classes=10, image_shape=SHAPE)
    with pytest.raises(ValueError, match=r"unknown model '0'.*expected one of.*'vit_ti'"):
        registry.create("0", num_classes=10, image_shape=SHAPE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", 0),
        ("num_classes", 2.5),
        ("num_classes", True),
        ("patch_size", -7),
        ("image_shape", (28, 28)),
        ("image_shape", (28, 0, 1)),
    ],
)
def test_a_bad_size_fails_and_is_named(field, value):
    arguments = {"num_classes": 10, "image_shape": SHAPE, "patch_size": 7, field: value}
    with pytest.raises(ValueError, match=field):
        registry.create("vit_mu_1_1", **arguments)


def test_an_unknown_option_fails_with_the_accepted_ones():
    with pytest.raises(ValueError, match=r"'vit_mu_1_1' has no option 'pooling'.*'pool', 'dtype', 'remat'"):
        registry.create("vit_mu_1_1", num_classes=10, image_shape=SHAPE, patch_size=7, pooling="mean")


def test_a_registered_model_is_created_with_its_options(user_models):
    registry.register("constant")(build_constant)
    model = registry.create("constant", num_classes=3, image_shape=[4, 4, 1], scale=2.0)
    assert model.name == "constant" and "constant" in registry.names()
    variables = model.init(jax.random.key(0))
    outputs, _ = model.apply(variables, {"image": jnp.zeros((5, 4, 4, 1), jnp.uint8)}, train=False)
    assert outputs["logits"].tolist() == [[2.0] * 3] * 5


def test_a_taken_or_malformed_name_is_refused(user_models):
    with pytest.raises(ValueError, match="'vit_ti' is registered already"):
        registry.create("vit_ti", num_classes=2, image_shape=(16, 16, 3))
        registry.register("vit_ti")(build_constant)
    with pytest.raises(ValueError, match="'My-Net'"):
        registry.register("My-Net")


def test_a_factory_is_found_by_its_place(monkeypatch):
    module = types.ModuleType("users_nets")
    module.build_constant = build_constant
    module.size = 3
    monkeypatch.setitem(__import__("sys").modules, "users_nets", module)
    model = registry.create("users_nets:build_constant", num_classes=3, image_shape=SHAPE)
    assert model.name == "users_nets:build_constant"
    for name in ("users_nets:missing", "no_such_module:build", "users_nets:size"):
        with pytest.raises(ValueError, match=name):
            registry.create(name, num_classes=3, image_shape=SHAPE)
