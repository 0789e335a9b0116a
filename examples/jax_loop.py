"""A softmax regression in plain JAX that trains on the sub-batches of a selector.

    classact serve --config=experiments/configs/demo.py:classact --workdir=runs/selection
    python examples/jax_loop.py runs/selection 200

With importance weights: what it minimises is the loss over the data as they come, whatever is selected.
"""

import sys

import jax
import jax.numpy as jnp

from classact import client

CLASSES, LEARNING_RATE = 1000, 0.02


def loss(params: dict, image: jax.Array, label: jax.Array, weight: jax.Array) -> jax.Array:
    """The weighted mean of the cross-entropies."""
    logits = (image.reshape(len(image), -1) / 255.0 - 0.5) @ params["w"] + params["b"]
    return jnp.mean(weight * -jax.nn.log_softmax(logits)[jnp.arange(len(label)), label])


@jax.jit
def update(params: dict, image: jax.Array, label: jax.Array, weight: jax.Array) -> tuple[dict, jax.Array]:
    """One step of gradient descent."""
    value, gradients = jax.value_and_grad(loss)(params, image, label, weight)
    return jax.tree.map(lambda value, gradient: value - LEARNING_RATE * gradient, params, gradients), value


def main(where: str, updates: int) -> None:
    """Trains, and prints the loss now and then."""
    params = None
    with client.connect(where) as selection:
        for number, batch in enumerate(selection.batches(weights=True), start=1):
            if params is None:
                inputs = batch["image"][0].size
                params = {"w": jnp.zeros((inputs, CLASSES)), "b": jnp.zeros(CLASSES)}
            params, value = update(params, batch["image"], batch["label"], batch["weight"])
            if number % 20 == 0 or number == updates:
                print(f"update {number}: sub-batch {batch['number']}, loss {float(value):.3f}", flush=True)
            if number == updates:
                break


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
