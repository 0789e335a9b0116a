import jax.numpy as jnp
import numpy as np
import pytest

from classact.models import images


def test_scale_maps_all_bytes_linearly_to_minus_one_to_one():
    pixels = jnp.arange(256, dtype=jnp.uint8)
    scaled = np.asarray(images.scale(pixels))
    np.testing.assert_allclose(scaled, np.arange(256) / 127.5 - 1, atol=1e-6)
    assert scaled.dtype == np.float32 and images.scale(pixels, jnp.bfloat16).dtype == jnp.bfloat16


def test_take_refuses_other_shapes_and_dtypes():
    good = np.zeros((2, 4, 4, 3), np.uint8)
    assert images.take({"image": good}, (4, 4, 3), "net").shape == (2, 4, 4, 3)
    for bad in (np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match=r"'net' takes images uint8\['B', 4, 4, 3\]"):
            images.take({"image": bad}, (4, 4, 3), "net")


def test_a_models_own_mean_and_deviation_become_0_and_1():
    pixels = np.array([[[[0, 51, 255]]]], np.uint8)
    scaled = images.scale(pixels, jnp.float32, (0.5, 0.2, 0.4), (0.25, 0.5, 0.1))
    np.testing.assert_allclose(scaled, [[[[-2, 0, 6]]]], atol=1e-6)
    assert images.scale(pixels, jnp.bfloat16, (0.5,) * 3, (0.5,) * 3).dtype == jnp.bfloat16
