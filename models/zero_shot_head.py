"""A classifier made of two towers: an image's similarities to the names of the classes.

As Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021).
The text tower has done its work before: of it the classes' embeddings are left.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from classact.models import registry


def build(towers: registry.Model, num_classes: int, features: int) -> registry.Model:
    """Makes a classifier.

    Args:
        towers: of `two_tower.build`.
        num_classes: K.
        features: D, the width of the common space.

    Returns:
        A model with the parameters `towers`, those of the towers without the text's, and `classes`,
        float32[K, D] of norm 1, see `variables`. Its `logits` are scale · embedding · classes + bias, where
        scale and bias are the towers' own (the bias is 0 unless they have learned by the sigmoid loss);
        its `embedding` is the image's in the common space, float32[B, D] of norm 1.
    """

    def init(key: jax.Array) -> registry.Variables:
        return variables(towers.init(key), jnp.zeros((num_classes, features), jnp.float32))

    def apply(
        variables: registry.Variables, batch: Mapping[str, Any], *, train: bool, rng: Any = None
    ) -> tuple[registry.Outputs, Any]:
        params, state = variables["params"], variables["state"]
        own = {"params": params["towers"], "state": state}
        found, state = towers.apply(own, {"image": batch["image"]}, train=train, rng=rng)
        embedding = found["image_embedding"]
        # At full precision, as the towers' own similarities: a few thousand numbers an image.
        similarities = jnp.matmul(embedding, params["classes"].T, precision=jax.lax.Precision.HIGHEST)
        return {"logits": found["scale"] * similarities + found["bias"], "embedding": embedding}, state

    return dataclasses.replace(towers, name=f"{towers.name}, of class names", init=init, apply=apply)


def variables(towers: Mapping[str, Any], classes: Any) -> dict[str, Any]:
    """The variables of the classifier.

    Args:
        towers: variables of the two towers.
        classes: float32[K, D], the classes' embeddings of norm 1.
    """
    kept = {name: value for name, value in towers["params"].items() if name != "text"}
    return {"params": {"towers": kept, "classes": classes}, "state": towers["state"]}
