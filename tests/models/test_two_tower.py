import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.models import cost, haiku_nets, registry, text, transformer, two_tower

SHAPE, LENGTH, VOCAB, END, WIDTH = (8, 8, 3), 6, 20, 19, 12


def text_tower(name="text_mu_2_1", **settings):
    return text.TextTransformer(text.size(name), VOCAB, LENGTH, END, WIDTH, **settings)


def create(image="vit_mu_1_1", scale=two_tower.INITIAL_SCALE, **settings):
    image_tower = registry.create(image, num_classes=WIDTH, image_shape=SHAPE, patch_size=4)
    return two_tower.build(image_tower, text_tower(**settings), scale)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, END, (3, LENGTH)).astype(np.int32)
    tokens[0, 3], tokens[1, 5], tokens[2, 1] = END, END, END
    return {"image": rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8), "text": tokens}


@pytest.fixture(scope="module")
def variables():
    # Compiled as one: the many small operations of an initialisation take longer one by one.
    return jax.jit(create().init)(jax.random.key(1))


@functools.cache
def applied():
    """The forward pass of `create()`, compiled: its many small operations take longer one by one."""
    return jax.jit(create().apply, static_argnames="train")


@functools.partial(jax.jit, static_argnums=0)
def _embed(tower, params, tokens):
    return tower.apply({"params": params}, tokens)


def embed(tower, params, tokens):
    return np.asarray(_embed(tower, params, tokens))


def text_in_numpy(params, tokens, causal):
    """One head, text by text and token by token, in float64; a text ends at its end token."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(x, p):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p[
            "bias"
        ]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    found = []
    for row in tokens:
        end = list(row).index(END)
        x = params["tokens"]["embedding"][row[: end + 1]] + params["positions"][: end + 1]
        for i in range(2):
            block = params[f"block_{i}"]
            q, k, v = np.split(dense(norm(x, block["norm_attention"]), block["attention"]["qkv"]), 3, -1)
            mixed = []
            for place in range(end + 1):
                seen = place + 1 if causal else end + 1
                weights = np.exp(k[:seen] @ q[place] / np.sqrt(q.shape[-1]))
                mixed.append(weights / weights.sum() @ v[:seen])
            x = x + dense(np.array(mixed), block["attention"]["out"])
            hidden = dense(norm(x, block["norm_mlp"]), block["mlp_in"])
            x = x + dense(np.asarray(jax.nn.gelu(hidden)), block["mlp_out"])
        found.append(norm(x[end], params["norm"]) @ params["projection"]["kernel"])
    return np.array(found)


@pytest.mark.parametrize("causal", [True, False])
def test_the_text_tower_reads_up_to_the_end_token(batch, causal):
    tower = text_tower(causal=causal)
    shapes = jax.eval_shape(tower.init, jax.random.key(2), batch["text"])["params"]
    # Far from the initial zeros and ones.
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: 0.2 * rng.normal(size=leaf.shape).astype(np.float32), shapes)
    found = embed(tower, params, batch["text"])
    assert found.shape == (3, WIDTH)
    np.testing.assert_allclose(found, text_in_numpy(params, batch["text"], causal), rtol=2e-3, atol=2e-4)
    changed = batch["text"].copy()
    changed[0, 4:] = 1
    np.testing.assert_array_equal(embed(tower, params, changed), found)


def test_another_context_length_is_an_error(batch):
    tower = text_tower()
    with pytest.raises(ValueError, match=r"expected \[B, 6\]"):
        tower.init(jax.random.key(0), batch["text"][:, :5])


def test_text_sizes_are_those_of_the_image_towers():
    assert text.size("text_b") == transformer.SIZES["b"]
    with pytest.raises(ValueError, match="text_mu_2_1"):
        text.size("text_mu_2")


def test_embeddings_have_norm_one(batch, variables):
    outputs, state = applied()(variables, batch, train=True)
    for name in ("image_embedding", "text_embedding"):
        np.testing.assert_allclose(np.linalg.norm(outputs[name], axis=-1), 1, rtol=1e-5)
        assert outputs[name].dtype == jnp.float32
    assert state == {}
    np.testing.assert_allclose(outputs["scale"], 1 / 0.07, rtol=1e-6)


def test_each_tower_runs_alone(batch, variables):
    both, _ = applied()(variables, batch, train=False)
    for name in ("image", "text"):
        outputs, _ = applied()(variables, {name: batch[name]}, train=False)
        assert set(outputs) == {f"{name}_embedding", "scale", "bias"}
        np.testing.assert_allclose(outputs[f"{name}_embedding"], both[f"{name}_embedding"], rtol=1e-6)


def test_the_scale_is_at_most_100_and_can_always_come_back(variables):
    def scale(log_scale):
        params = {**variables["params"], "log_scale": log_scale}
        # No tower has a part in it.
        return create().apply({**variables, "params": params}, {}, train=True)[0]["scale"]

    np.testing.assert_allclose(scale(jnp.float32(9.0)), 100, rtol=1e-5)
    np.testing.assert_allclose(scale(jnp.float32(2.0)), np.exp(2.0), rtol=1e-6)
    # Above the bound as at it: it is led back.
    for log_scale in (2.0, np.log(100.0), 4.7, 9.0):
        gradient = jax.grad(scale)(jnp.float32(log_scale))
        np.testing.assert_allclose(gradient, min(np.exp(log_scale), 100), rtol=1e-5)
    with pytest.raises(ValueError, match="at most 100"):
        create(scale=101.0)


def test_a_scale_without_bound_is_as_large_as_it_has_become(batch, variables):
    image = registry.create("vit_mu_1_1", num_classes=WIDTH, image_shape=SHAPE, patch_size=4)
    model = two_tower.build(image, text_tower(), max_scale=float("inf"))
    params = {**variables["params"], "log_scale": jnp.float32(4.77)}
    found, _ = model.apply({**variables, "params": params}, {"text": batch["text"]}, train=True)
    np.testing.assert_allclose(found["scale"], np.exp(4.77), rtol=1e-6)
    assert model.project(params)["log_scale"] == params["log_scale"]


def test_texts_are_read_at_the_end_or_at_the_last_place():
    with pytest.raises(ValueError, match=r"pool='mean' of texts: expected one of \('end', 'last'\)"):
        text_tower(pool="mean")


def test_an_update_past_the_bound_ends_at_it(variables):
    model = create()
    for log_scale, expected in ((9.0, np.log(100)), (2.0, 2.0)):
        params = {**variables["params"], "log_scale": jnp.float32(log_scale)}
        projected = model.project(params)
        assert projected.keys() == params.keys()
        np.testing.assert_allclose(projected["log_scale"], expected, rtol=1e-6)
        for name in ("image", "text", "bias"):
            assert projected[name] is params[name]


def test_the_bounds_of_the_image_tower_are_kept():
    def halved(params):
        return jax.tree.map(lambda leaf: leaf / 2, params)

    image = registry.create("vit_mu_1_1", num_classes=WIDTH, image_shape=SHAPE, patch_size=4)
    model = two_tower.build(dataclasses.replace(image, project=halved), text_tower())
    params = {"image": {"w": 4.0}, "text": {}, "log_scale": jnp.float32(1.0), "bias": 0.0}
    assert model.project(params)["image"] == {"w": 2.0}


def test_an_embedding_of_zeros_has_a_finite_gradient(batch, variables):
    params = jax.tree.map(jnp.zeros_like, variables["params"])

    def total(params):
        outputs, _ = create().apply({"params": params, "state": {}}, batch, train=True)
        return outputs["image_embedding"].sum() + outputs["text_embedding"].sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(params)))


def test_haiku_networks_are_image_towers_too(batch):
    """Their running statistics are the pair's state; a small one has them as those of the registry do."""

    def network(pixels, train):
        x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Conv2D(4, 3)(pixels), train))
        return hk.Linear(WIDTH, name="logits")(x.mean((1, 2)))

    image = haiku_nets.from_network("small", SHAPE, network)
    model = two_tower.build(image, text_tower("text_mu_1_1"))
    variables = jax.jit(model.init)(jax.random.key(0))
    outputs, state = jax.jit(model.apply, static_argnames="train")(variables, batch, train=True)
    assert outputs["image_embedding"].shape == (3, WIDTH)
    before, after = jax.tree.leaves(variables["state"]), jax.tree.leaves(state)
    assert before and any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_cost_is_that_of_both_towers():
    image = registry.create("vit_mu_1_1", num_classes=WIDTH, image_shape=SHAPE, patch_size=4)
    width, depth, mlp = 64, 2, 256
    per_token = 4 * width**2 + 2 * width * mlp + 2 * LENGTH * width
    texts = depth * LENGTH * per_token + width * WIDTH
    assert cost.forward_macs(create(), SHAPE, LENGTH) == cost.forward_macs(image, SHAPE) + texts
    assert cost.forward_macs(create(), SHAPE) == cost.forward_macs(image, SHAPE)
