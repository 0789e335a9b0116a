"""The contrastive task against formulas written out in numpy, pair by pair."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.selection.contrastive import Contrastive


def make_outputs(size=5, width=3, scale=2.5, bias=-0.7, seed=0):
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(2, size, width))
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (image, text)]
    return {
        "image_embedding": jnp.asarray(unit[0], jnp.float32),
        "text_embedding": jnp.asarray(unit[1], jnp.float32),
        "scale": jnp.float32(scale),
        "bias": jnp.float32(bias),
    }


def in_numpy(outputs):
    return {name: np.asarray(value, np.float64) for name, value in outputs.items()}


def infonce_terms(outputs):
    """For each pair, −log of its share among all texts and among all images, averaged."""
    o = in_numpy(outputs)
    terms = []
    for i in range(len(o["image_embedding"])):
        to_texts = [np.exp(o["scale"] * o["image_embedding"][i] @ t) for t in o["text_embedding"]]
        to_images = [np.exp(o["scale"] * o["text_embedding"][i] @ v) for v in o["image_embedding"]]
        terms.append((-np.log(to_texts[i] / sum(to_texts)) - np.log(to_images[i] / sum(to_images))) / 2)
    return np.array(terms)


@functools.partial(jax.jit, static_argnames="act")
def both_losses(outputs, act):
    task = Contrastive(act=act)
    return task.learn_loss(outputs, {}), task.act_loss(outputs, {})


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 7), scale=st.floats(0.1, 100), seed=st.integers(0, 99))
def test_infonce_is_equation_10(size, scale, seed):
    outputs = make_outputs(size, scale=scale, seed=seed)
    expected = infonce_terms(outputs)
    learned, acted = both_losses(outputs, "infonce")
    np.testing.assert_allclose(learned, expected.mean(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(acted, expected, rtol=1e-4, atol=1e-4)


def test_sigmoid_sums_over_all_pairs():
    outputs = make_outputs()
    o = in_numpy(outputs)
    expected = 0.0
    for i, image in enumerate(o["image_embedding"]):
        for j, text in enumerate(o["text_embedding"]):
            logit = (1 if i == j else -1) * (o["scale"] * image @ text + o["bias"])
            expected += np.log1p(np.exp(-logit)) / len(o["image_embedding"])
    np.testing.assert_allclose(Contrastive("sigmoid").learn_loss(outputs, {}), expected, rtol=1e-5)


def test_the_score_is_the_negative_dot_product():
    outputs = make_outputs()
    expected = [-(a @ b) for a, b in zip(outputs["image_embedding"], outputs["text_embedding"], strict=True)]
    np.testing.assert_allclose(Contrastive().act_loss(outputs, {}), expected, rtol=1e-5)


def test_padding_is_nobodys_negative():
    outputs = make_outputs(5)
    padded = {
        name: jnp.concatenate([value, value[:1], value[:1]]) if value.ndim else value
        for name, value in outputs.items()
    }
    valid = jnp.arange(7) < 5
    task = Contrastive(act="infonce")
    np.testing.assert_allclose(
        task.act_loss(padded, {"valid": valid})[:5], task.act_loss(outputs, {}), rtol=1e-5
    )
    assert np.isfinite(task.act_loss(padded, {"valid": valid})).all()


def test_metrics():
    outputs = make_outputs(2)
    matched = {**outputs, "text_embedding": outputs["image_embedding"]}
    assert float(Contrastive().metrics(matched, {})["top1"]) == 1.0
    assert float(Contrastive().metrics(matched, {})["scale"]) == 2.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learn": "triplet"}, "loss 'triplet'"),
        ({"act": "cos"}, "'cos'"),
        ({"precision": "low"}, "similarity_precision 'low': expected one of"),
    ],
)
def test_unknown_losses_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Contrastive(**arguments)


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_all_products_of_embeddings_have_the_precision_that_is_asked_for(loss):
    for name, expected in (("default", "precision=None"), ("highest", "precision=(Precision.HIGHEST")):
        task = Contrastive(loss, "infonce", precision=name)

        def every(outputs, task=task):
            gradient = jax.grad(lambda outputs: task.learn_loss(outputs, {}))(outputs)
            return gradient, task.act_loss(outputs, {}), task.metrics(outputs, {})

        said = str(jax.make_jaxpr(every)(make_outputs()))
        # A loss and its two gradients, of one direction or of both; a score; a metric.
        products = (6 if loss == "infonce" else 3) + 2
        assert said.count("dot_general[") == products
        assert said.count(expected) == (0 if name == "default" else products)


# The number of virtual devices is fixed when JAX starts: a process of its own.
_EIGHT_DEVICES = """
import re
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from classact.selection.contrastive import Contrastive
from tests.selection.test_contrastive import make_outputs

assert jax.device_count() == 8
axes = ("data", "fsdp")
mesh = Mesh(np.array(jax.devices()).reshape(4, 2), axes)
outputs = make_outputs(size=64, width=16)
for loss in ("infonce", "sigmoid"):
    expected = jax.value_and_grad(lambda o: Contrastive(loss).learn_loss(o, {}))(outputs)
    rows = NamedSharding(mesh, PartitionSpec(axes))
    placed = {k: jax.device_put(v, rows) if v.ndim else v for k, v in outputs.items()}
    step = jax.jit(jax.value_and_grad(lambda o: Contrastive(loss, mesh=mesh).learn_loss(o, {})))
    found = step(placed)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    compiled = step.lower(placed).compile().as_text()
    assert re.search(r"f32\\[8,64\\]", compiled), "one device's block"
    assert not re.search(r"f32\\[64,64\\]", compiled), "the whole matrix"
print("equal")
"""


def test_eight_devices_compute_what_one_does(pytestconfig):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _EIGHT_DEVICES],
        env=env,
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
