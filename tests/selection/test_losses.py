"""The classification task against formulas written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.selection import losses

LOGITS = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
BATCH = {"label": np.array([1, 0], np.int32)}
LOG_SOFTMAX = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))


def outputs(dtype=jnp.float32):
    return {"logits": jnp.asarray(LOGITS, dtype)}


def test_act_loss_is_the_cross_entropy_without_smoothing():
    expected = [-LOG_SOFTMAX[0, 1], -LOG_SOFTMAX[1, 0]]
    found = losses.Classification(label_smoothing=0.3).act_loss(outputs(), BATCH)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_learn_loss_smooths_the_labels():
    targets = np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])  # 0.3 spread over three classes.
    expected = -(targets * LOG_SOFTMAX).sum(-1).mean()
    found = losses.Classification(label_smoothing=0.3).learn_loss(outputs(), BATCH)
    assert found.shape == ()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_smoothing_the_losses_agree():
    task = losses.Classification(label_smoothing=0.0)
    np.testing.assert_allclose(
        task.learn_loss(outputs(), BATCH), task.act_loss(outputs(), BATCH).mean(), rtol=1e-6
    )


def test_losses_are_float32_for_low_precision_logits():
    task = losses.Classification()
    assert task.act_loss(outputs(jnp.bfloat16), BATCH).dtype == jnp.float32
    assert task.learn_loss(outputs(jnp.bfloat16), BATCH).dtype == jnp.float32


def test_the_gradient_pushes_towards_the_label():
    task = losses.Classification()
    gradient = jax.grad(lambda logits: task.learn_loss({"logits": logits}, BATCH))(outputs()["logits"])
    assert gradient[0, 1] < 0
    assert gradient[1, 0] < 0


def test_top1_counts_the_hits():
    assert float(losses.Classification().metrics(outputs(), BATCH)["top1"]) == 0.5


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_bad_smoothing_is_named(value):
    with pytest.raises(ValueError, match="label_smoothing="):
        losses.Classification(label_smoothing=value)
