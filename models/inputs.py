"""What a model wants of images that are not as its own: another size.

A model of the registry is built for one shape. `fitted` puts in front of it what makes that of the
images of a data set: on the device, in the function that is compiled with the model.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from classact.models import images, registry

Interpolation = Literal["bilinear", "bicubic"]


@dataclasses.dataclass(frozen=True)
class Input:
    """The images that a model takes; how their pixels are scaled is an option of the model.

    Attributes:
        image_shape: (H, W, C) that it was built for, in pixels.
        interpolation: how images of another size are resized, always with antialiasing.
    """

    image_shape: tuple[int, int, int]
    interpolation: Interpolation = "bilinear"


def fitted(model: registry.Model, given: tuple[int, int, int], own: Input) -> registry.Model:
    """A model that takes images of another size than it was built for.

    Resized pixels are rounded to bytes again, so that any model can take them, and so that they are
    what a data pipeline would have read from a smaller file.

    Args:
        model: built for `own.image_shape`.
        given: (H, W, C) of the images that it will be given, in pixels.
        own: what it takes itself.

    Returns:
        The model itself if there is nothing to do; else one whose `apply` takes `image`:
        uint8[B, *given].

    Raises:
        ValueError: if the number of channels is another.
    """
    if given == own.image_shape:
        return model
    if given[2] != own.image_shape[2]:
        raise ValueError(f"images of {given[2]} channels: the model takes {own.image_shape[2]}")

    def apply(
        variables: registry.Variables, batch: Mapping[str, Any], *, train: bool, rng: Any = None
    ) -> tuple[registry.Outputs, Any]:
        if "image" in batch:
            image = images.take(batch, given, model.name)
            batch = {**batch, "image": resized(image, own.image_shape, own.interpolation)}
        return model.apply(variables, batch, train=train, rng=rng)

    return dataclasses.replace(model, apply=apply)


def resized(
    pixels: jax.Array, image_shape: tuple[int, int, int], interpolation: Interpolation = "bilinear"
) -> jax.Array:
    """Resizes uint8[B, H, W, C] to uint8[B, *image_shape], antialiased (`jax.image.resize`)."""
    if pixels.shape[1:] == image_shape:
        return pixels
    shape = (pixels.shape[0], *image_shape)
    found = jax.image.resize(pixels.astype(jnp.float32), shape, interpolation, antialias=True)
    return jnp.clip(jnp.round(found), 0, 255).astype(jnp.uint8)
