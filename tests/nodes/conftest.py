"""A linear model and a metrics reader for the tests of the nodes."""

import json

import jax
import jax.numpy as jnp
import pytest

from classact.models import registry

IMAGE_SHAPE = (2, 2, 1)
NUM_CLASSES = 3


def linear(name="linear"):
    """A softmax regression on pixels, as a model of the registry."""

    def init(key):
        weights = jax.random.normal(key, (4, NUM_CLASSES)) * 0.1
        return {"params": {"w": weights, "b": jnp.zeros(NUM_CLASSES)}, "state": {}}

    def apply(variables, batch, *, train, rng=None):
        pixels = batch["image"].reshape(batch["image"].shape[0], -1).astype(jnp.float32) / 255.0
        logits = pixels @ variables["params"]["w"] + variables["params"]["b"][None]
        return {"logits": logits, "embedding": pixels}, variables["state"]

    return registry.Model(name, init, apply)


@pytest.fixture
def linear_model():
    return linear()


@pytest.fixture
def read_metrics():
    def read(path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read
