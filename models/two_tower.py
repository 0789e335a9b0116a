"""A model of images and texts: two towers that map into one space (section 3.4).

The image tower is any model of the registry, its classification head as the
projection into the common space; the text tower is a `text.TextTransformer`.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from classact.models import registry, text

# Radford et al. (2021): the inverse temperature starts at 1/0.07 and is clipped at 100.
INITIAL_SCALE = 1 / 0.07
MAX_SCALE = 100.0
# Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (2023).
SIGMOID_SCALE, SIGMOID_BIAS = 10.0, -10.0


def build(
    image: registry.Model,
    texts: text.TextTransformer,
    initial_scale: float = INITIAL_SCALE,
    initial_bias: float = 0.0,
    max_scale: float = MAX_SCALE,
) -> registry.Model:
    """Joins two towers.

    Args:
        image: the image tower, built with `num_classes` = D, the width of the
            common space.
        texts: the text tower, with `features` = D.
        initial_scale: of the learned factor of the similarities (the inverse of
            Eq. 10's temperature), at most `max_scale`.
        initial_bias: of the learned bias of the similarities, which only the
            sigmoid loss uses.
        max_scale: bound of the factor; infinite: there is none, as in SigLIP, whose
            published models are above CLIP's.

    Returns:
        A model whose `apply` takes `image: uint8[B, H, W, C]`, `text: int32[B, L]`
        or both, and runs the towers that it has inputs for. Its outputs are
        `image_embedding` and `text_embedding`, float32[B, D] of norm 1, and the
        scalars `scale`, at most `max_scale`, and `bias`. Its `project` keeps the scale's
        parameter at the bound, as CLIP does, so that it can always come back.

    Raises:
        ValueError: if `initial_scale` is out of range.
    """
    if not 0 < initial_scale <= max_scale:
        raise ValueError(f"initial_scale={initial_scale!r}: must be above 0 and at most {max_scale}")
    max_log_scale = math.log(max_scale)

    def init(key: jax.Array) -> registry.Variables:
        image_key, text_key = jax.random.split(key)
        tokens = jax.ShapeDtypeStruct((1, texts.context_length), jnp.int32)
        image_variables = image.init(image_key)
        params = {
            "image": image_variables["params"],
            "text": texts.lazy_init(text_key, tokens)["params"],
            "log_scale": jnp.asarray(math.log(initial_scale), jnp.float32),
            "bias": jnp.asarray(initial_bias, jnp.float32),
        }
        return {"params": params, "state": image_variables["state"]}

    def apply(
        variables: registry.Variables,
        batch: Mapping[str, Any],
        *,
        train: bool,
        rng: jax.Array | None = None,
    ) -> tuple[registry.Outputs, Any]:
        params, state = variables["params"], variables["state"]
        log_scale = params["log_scale"]
        # Checkpoints of an earlier version may be past the bound. The value is the bound's then,
        # and the gradient as without one: that of a minimum is 0, and would keep it there.
        above = jax.lax.stop_gradient(jnp.maximum(log_scale - max_log_scale, 0))
        outputs = {"scale": jnp.exp(log_scale - above), "bias": params["bias"]}
        if "image" in batch:
            own = {"params": params["image"], "state": state}
            found, state = image.apply(own, {"image": batch["image"]}, train=train, rng=rng)
            outputs["image_embedding"] = _unit(found["logits"])
        if "text" in batch:
            outputs["text_embedding"] = _unit(texts.apply({"params": params["text"]}, batch["text"]))
        return outputs, state

    def project(params: Any) -> Any:
        own = {"log_scale": jnp.minimum(params["log_scale"], max_log_scale)}
        return {**params, "image": image.project(params["image"]), **own}

    return registry.Model(f"{image.name}+text", init, apply, project)


def _unit(x: Any) -> jax.Array:
    """Scales the rows of [B, D] to norm 1; a row of zeros stays."""
    x = x.astype(jnp.float32)
    # Of the sum, not of the root: the gradient of a norm is not finite at 0.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
