"""What every model does with a batch's images before its first layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def take(batch: Mapping[str, Any], image_shape: tuple[int, int, int], model: str) -> jax.Array:
    """Returns the batch's images, uint8[B, H, W, C], after a check of their shape.

    Raises:
        ValueError: if they are not uint8[B, *image_shape]; `model` is named.
    """
    images = jnp.asarray(batch["image"])
    if images.shape[1:] != image_shape or images.dtype != jnp.uint8:
        raise ValueError(
            f"model {model!r} takes images uint8{['B', *image_shape]}, got {images.dtype}{list(images.shape)}"
        )
    return images


def scale(
    images: jax.Array,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> jax.Array:
    """Maps uint8 pixels 0 … 255 linearly to what a model's first layer takes.

    Args:
        images: uint8[B, H, W, C].
        dtype: of the result.
        mean: of each channel, of pixels from 0 to 1, which becomes 0; empty: pixels become
            [-1, 1].
        std: likewise, which becomes 1.

    Returns:
        The images in `dtype`. Grey ones, of one channel, have as many as `mean` then.
    """
    if not mean:
        # Scaled in float32: bfloat16 cannot tell the upper half of 256 grey values apart.
        return (images.astype(jnp.float32) * (2.0 / 255.0) - 1.0).astype(dtype)
    factor, offset = (jnp.asarray(values, jnp.float32)[None, None, None] for values in (std, mean))
    return ((images.astype(jnp.float32) * (1.0 / 255.0) - offset) / factor).astype(dtype)
