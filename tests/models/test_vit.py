import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from classact.models import registry, transformer, vit

SHAPE = (8, 12, 3)


def create(name="vit_mu_1_1", **settings):
    return registry.create(name, num_classes=5, image_shape=SHAPE, patch_size=4, **settings)


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    return {"image": image, "label": np.array([0, 4, 2], np.int32)}


@pytest.fixture(scope="module")
def variables():
    # Compiled as one: the many small operations of an initialisation take longer one by one.
    return jax.jit(create().init)(jax.random.key(1))


def loss(model, params, batch):
    outputs, _ = model.apply({"params": params, "state": {}}, batch, train=True)
    return -jax.nn.log_softmax(outputs["logits"])[jnp.arange(3), batch["label"]].sum()


def layer_norm(x, p):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def forward_in_numpy(params, images, patch, heads):
    """The encoder written out example by example, head by head, in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    embeddings = []
    for image in images:
        rows, columns = image.shape[0] // patch, image.shape[1] // patch
        cut = [
            image[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(-1)
            for r in range(rows)
            for c in range(columns)
        ]
        tokens = dense(np.array(cut) / 127.5 - 1, params["patch_embedding"])
        x = np.concatenate([params["cls"][0], tokens]) + params["positions"][0]
        for i in range(sum(key.startswith("block_") for key in params)):
            block = params[f"block_{i}"]
            q, k, v = np.split(
                dense(layer_norm(x, block["norm_attention"]), block["attention"]["qkv"]), 3, -1
            )
            mixed = np.zeros_like(q)
            for head in np.split(np.arange(q.shape[-1]), heads):
                scores = q[:, head] @ k[:, head].T / np.sqrt(len(head))
                weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
                mixed[:, head] = weights @ v[:, head]
            x = x + dense(mixed, block["attention"]["out"])
            hidden = dense(layer_norm(x, block["norm_mlp"]), block["mlp_in"])
            gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
            x = x + dense(gelu, block["mlp_out"])
        embeddings.append(layer_norm(x, params["norm"])[0])
    return np.array(embeddings), dense(np.array(embeddings), params["head"])


@pytest.mark.parametrize("name", ["vit_mu_2_1", "vit_mu_6_3"])
def test_the_forward_pass_agrees_with_numpy(name, batch):
    model = create(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0))["params"]
    # Far from the initial zeros and ones, so that every parameter counts.
    noise = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: 0.3 * noise.normal(size=leaf.shape).astype(np.float32), shapes)
    outputs, state = jax.jit(model.apply, static_argnames="train")(
        {"params": params, "state": {}}, batch, train=False
    )
    embedding, logits = forward_in_numpy(
        params, batch["image"], patch=4, heads=transformer.SIZES[name.removeprefix("vit_")].heads
    )
    np.testing.assert_allclose(outputs["embedding"], embedding, atol=2e-4)
    np.testing.assert_allclose(outputs["logits"], logits, atol=2e-4)
    assert state == {}


def test_variables_are_plain_dicts_that_survive_msgpack(variables):
    def check(tree):
        assert type(tree) is dict
        for key, value in tree.items():
            assert isinstance(key, str)
            check(value) if isinstance(value, dict) else None

    check(variables)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    restored = serialization.msgpack_restore(serialization.msgpack_serialize(jax.device_get(variables)))
    jax.tree.map(np.testing.assert_array_equal, restored, jax.device_get(variables))


def test_first_losses_are_close_to_the_logarithm_of_the_number_of_classes(batch, variables):
    assert loss(create(), variables["params"], batch) / 3 == pytest.approx(np.log(5), abs=0.3)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_pooling_decides_the_number_of_tokens(pool):
    params = jax.eval_shape(create(pool=pool).init, jax.random.key(0))["params"]
    assert ("cls" in params) == (pool == "cls")
    assert params["positions"].shape == (1, 2 * 3 + (pool == "cls"), 64)


def test_mean_pooling_averages_the_patches(batch):
    model = create(pool="mean")
    variables = jax.jit(model.init)(jax.random.key(0))
    # Without positions a mean does not depend on the order of the patches.
    variables["params"]["positions"] *= 0
    swapped = batch["image"].copy()
    swapped[:, :4, :4], swapped[:, 4:, 8:] = batch["image"][:, 4:, 8:], batch["image"][:, :4, :4]
    apply = jax.jit(model.apply, static_argnames="train")
    first, second = (
        apply(variables, {"image": image}, train=False)[0] for image in (batch["image"], swapped)
    )
    np.testing.assert_allclose(first["embedding"], second["embedding"], atol=1e-5)
    assert np.abs(first["embedding"].mean(-1)).max() < 1e-5  # An average of normalised tokens.


def test_bfloat16_computes_close_to_float32_and_returns_float32(batch, variables):
    # Larger logits than at the start, so that a tolerance means something.
    params = {**variables["params"], "head": jax.tree.map(lambda x: 50 * x, variables["params"]["head"])}
    full, half = (create(dtype=dtype) for dtype in ("float32", "bfloat16"))
    exact, rough = (
        jax.jit(lambda p, apply=model.apply: apply({"params": p, "state": {}}, batch, train=False)[0])(params)
        for model in (full, half)
    )
    assert rough["logits"].dtype == rough["embedding"].dtype == jnp.float32
    error = np.abs(exact["logits"] - rough["logits"]).max()
    assert 1e-4 < error < 0.02 * np.abs(exact["logits"]).max()
    initial = jax.eval_shape(half.init, jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(initial))
    gradients = jax.eval_shape(jax.grad(lambda p: loss(half, p, batch)), params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))


def test_patches_and_their_product_are_a_strided_convolution(batch):
    pixels = jnp.asarray(batch["image"], jnp.float32)
    kernel = np.random.default_rng(0).normal(size=(4, 4, 3, 6)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        pixels, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    product = vit.patches(pixels, 4) @ kernel.reshape(-1, 6)
    np.testing.assert_allclose(product, expected.reshape(3, -1, 6), rtol=1e-4, atol=1e-2)


def test_a_patch_size_must_divide_both_sides():
    with pytest.raises(ValueError, match=r"patch_size=3.*8×12.*expected one of \[1, 2, 4\]"):
        registry.create("vit_ti", num_classes=5, image_shape=SHAPE, patch_size=3)


@pytest.mark.parametrize(("option", "value"), [("pool", "max"), ("dtype", "float16")])
def test_an_unknown_setting_is_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}='{value}': expected one of"):
        create(**{option: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"activation": "relu"}, r"activation='relu': expected one of \('gelu_tanh', 'gelu', 'quick_gelu'\)"),
        ({"positions": "rope"}, "positions='rope': expected one of"),
        ({"norm": "none"}, "norm='none': expected one of"),
        ({"norm": "pooled", "pool": "map"}, "norm='pooled' has none"),
        ({"class_token": False}, "class_token=False leaves nothing to read"),
        ({"mean": [0.5], "std": []}, "expected a number for each channel"),
        ({"mean": [0.5] * 4, "std": [1.0] * 4}, "expected 3 numbers, one for each channel"),
        ({"registers": -1}, "registers=-1: expected a whole number"),
        ({"layer_scale": -1.0}, "layer_scale=-1.0"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"heads": 3}, "heads=3: it must divide width=64"),
        ({"head": False}, "the outputs are the 64 channels, expected 5"),
        ({"layerscale": 1.0}, "no option 'layerscale': did you mean 'layer_scale'"),
    ],
)
def test_a_variant_that_is_none_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create(**options)


def test_a_vit_without_a_size_in_its_name_is_told_it():
    with pytest.raises(ValueError, match="needs the options mlp, heads"):
        create("vit", width=8, depth=1)
    sized = create("vit", width=64, depth=1, mlp=256, heads=1)
    shapes = [jax.eval_shape(model.init, jax.random.key(0)) for model in (sized, create())]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("options", "more", "fewer"),
    [
        ({"positions": "sincos"}, set(), {"positions"}),
        ({"registers": 2}, {"registers"}, set()),
        ({"pre_norm": True}, {"pre_norm"}, set()),
        ({"pool": "map"}, {"pool"}, {"cls"}),
        ({"pool": "mean", "class_token": True}, set(), set()),
        ({"head": False, "num_classes": 64}, set(), {"head"}),
    ],
)
def test_a_variant_has_the_parameters_that_it_needs(options, more, fewer):
    options = {"num_classes": 5, **options}
    model = registry.create("vit_mu_1_1", image_shape=SHAPE, patch_size=4, **options)
    plain = jax.eval_shape(create().init, jax.random.key(0))["params"]
    found = jax.eval_shape(model.init, jax.random.key(0))["params"]
    assert set(found) == set(plain) - fewer | more
    assert found["block_0"] == plain["block_0"]


def test_images_of_another_shape_are_refused(variables):
    with pytest.raises(ValueError, match="'vit_mu_1_1' takes images"):
        create().apply(variables, {"image": np.zeros((2, 12, 8, 3), np.uint8)}, train=False)
