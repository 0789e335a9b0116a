"""Images made as a model takes them: against Pillow's resizing, and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from classact.models import inputs, registry

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pictures(count, *shape):
    """Smooth ones with sharp edges and the extremes of a byte."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 3, 3, shape[2]), np.uint8)
    small = coarse.repeat(shape[0] // 3 + 1, 1).repeat(shape[1] // 3 + 1, 2)
    return np.ascontiguousarray(small[:, : shape[0], : shape[1]])


def seen(batch, given, own):
    """What a model that takes its images as they are is given."""

    def apply(variables, batch, *, train, rng=None):
        return {name: jnp.asarray(array) for name, array in batch.items()}, variables

    model = registry.Model("seen", lambda key: {}, apply)
    return inputs.fitted(model, given, inputs.Input(own)).apply({}, batch, train=False)[0]


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize(("before", "after"), [((24, 24), (12, 12)), ((17, 23), (8, 9)), ((6, 6), (16, 16))])
def test_resizing_is_pillows(interpolation, before, after):
    pixels = pictures(3, *before, 3)
    found = np.asarray(inputs.resized(jnp.asarray(pixels), (*after, 3), interpolation))
    # In float32, a channel at a time: of bytes Pillow rounds between rows and columns.
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize(after[::-1], PILLOW[interpolation])
        for channel in pixels.transpose(0, 3, 1, 2).reshape(-1, *before)
    ]
    theirs = np.stack(list(map(np.asarray, channels))).reshape(3, 3, *after).transpose(0, 2, 3, 1)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, theirs.clip(0, 255), atol=0.501)


def test_a_model_that_takes_the_images_as_they_are_is_left_alone():
    model = registry.Model("any", lambda key: {}, lambda *args, **kwargs: ({}, {}))
    assert inputs.fitted(model, (8, 8, 3), inputs.Input((8, 8, 3))) is model


def test_a_model_sees_its_own_size_and_the_rest_of_a_batch():
    image = pictures(2, 8, 8, 3)
    found = seen({"image": image, "text": np.zeros((2, 3), np.int32)}, (8, 8, 3), (4, 4, 3))
    assert set(found) == {"image", "text"}
    np.testing.assert_array_equal(found["image"], inputs.resized(jnp.asarray(image), (4, 4, 3)))
    assert set(seen({"text": np.zeros((2, 3), np.int32)}, (8, 8, 3), (4, 4, 3))) == {"text"}
    with pytest.raises(ValueError, match=r"'seen' takes images uint8\['B', 8, 8, 3\]"):
        seen({"image": image[:, :4]}, (8, 8, 3), (4, 4, 3))


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="images of 3 channels: the model takes 1"):
        seen({}, (8, 8, 3), (4, 4, 1))
