"""Positions at another image size, against what the tools do it with: jax.image as timm, SciPy as big_vision.

PyTorch's own way, which Hugging Face's models have, is checked by the checkpoints in `fixtures`.
"""

import jax
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_cases import SPECS

from classact.models import vit
from classact.weights import opening, positions

SIDES = st.tuples(st.integers(2, 9), st.integers(2, 9))


def grid(sides, seed):
    return np.random.default_rng(seed).normal(size=(sides[0] * sides[1], 3)).astype(np.float32)


@settings(max_examples=25)
@given(SIDES, SIDES, st.integers(0, 99))
def test_big_visions_positions_are_zoomed(old, new, seed):
    stored = grid(old, seed)
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    wanted = scipy.ndimage.zoom(stored.reshape(*old, 3), zoom, order=1).reshape(-1, 3)
    found = positions.resized(stored, old, new, "corners")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def keys(old, new):
    """float64[new, old]: Keys' kernel (a = -0.5) around each new place, as wide as the step downwards."""
    places, wide = (np.arange(new) + 0.5) * old / new - 0.5, max(old / new, 1.0)
    x = np.abs(places[:, None] - np.arange(old)) / wide
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), SIDES, st.integers(0, 9))
def test_antialiased_positions_are_those_of_keys_kernel(old, new, seed):
    stored = grid(old, seed)
    rows, columns = (keys(*sides) for sides in zip(old, new, strict=True))
    wanted = np.einsum("ri,cj,ijd->rcd", rows, columns, stored.reshape(*old, 3))
    found = positions.resized(stored, old, new, "antialiased")
    np.testing.assert_allclose(found.reshape(*new, 3), wanted, atol=1e-4)


# A compilation each.
@settings(max_examples=4)
@given(SIDES, SIDES, st.integers(0, 99))
def test_timms_positions_are_resized_with_antialiasing(old, new, seed):
    stored = grid(old, seed)
    wanted = jax.image.resize(stored.reshape(*old, 3), (*new, 3), "cubic", antialias=True)
    found = positions.resized(stored, old, new, "antialiased")
    np.testing.assert_allclose(found, np.asarray(wanted).reshape(-1, 3), atol=1e-4)


@settings(max_examples=25)
@given(SIDES, SIDES, st.sampled_from(positions.METHODS))
def test_what_is_the_same_everywhere_stays(old, new, method):
    same = np.full((old[0] * old[1], 2), 0.7, np.float32)
    np.testing.assert_allclose(positions.resized(same, old, new, method), 0.7, rtol=1e-6)
    stored = grid(old, 1)
    np.testing.assert_array_equal(positions.resized(stored, old, old, method), stored)


def test_class_token_and_registers_keep_their_places():
    stored, larger = (
        opening.read(f"{SPECS['hf_dinov2_registers']}{size}").variables["params"]
        for size in ("", "?image_size=16")
    )
    assert larger["positions"].shape == (1, 1 + 16, 16)
    np.testing.assert_array_equal(larger["positions"][:, 0], stored["positions"][:, 0])
    np.testing.assert_array_equal(larger["registers"], stored["registers"])


@pytest.mark.parametrize("width", [4, 12])
def test_fixed_positions_are_big_visions(width):
    """As in big_vision's `posemb_sincos_2d`, place by place."""
    rows, columns = 2, 3
    found = vit.sincos(rows, columns, width)[0]
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        quarter = width // 4
        speed = [10_000 ** -(k / (quarter - 1)) if quarter > 1 else 1.0 for k in range(quarter)]
        wanted = [wave(axis * s) for axis in (column, row) for wave in (np.sin, np.cos) for s in speed]
        np.testing.assert_allclose(found[place], wanted, atol=1e-6)
