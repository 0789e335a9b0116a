import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from classact.data.decoding import turning
from classact.data.decoding.frames import Frame, finished, flipped, middle_box

sides = st.integers(1, 3000)


@given(width=sides, height=sides, across=sides, down=sides)
def test_the_middle_is_the_largest_box_of_its_proportions(width, height, across, down):
    left, top, right, bottom = middle_box(width, height, (across, down))
    assert abs((right - left) * down - (bottom - top) * across) < 1e-6 * (across + down) * max(width, height)
    assert abs(left + right - width) < 1e-6 and abs(top + bottom - height) < 1e-6
    # It cannot grow: it touches two sides.
    assert min(left, top) >= -1e-6 and min(abs(left), abs(top)) < 1e-6


@given(
    width=st.integers(2, 9),
    height=st.integers(2, 9),
    channels=st.sampled_from([1, 3]),
    flip=st.booleans(),
    data=st.data(),
)
def test_mirrored_and_moved_pixels_come_from_where_padding_by_reflection_has_them(
    width, height, channels, flip, data
):
    across, down = (data.draw(st.integers(1 - side, side - 1)) for side in (width, height))
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    found = finished(pixels, Frame((0, 0, 1, 1), (width, height), flip, (across, down)))
    mirrored = pixels[:, ::-1] if flip else pixels
    # Back and forth between the first and the last one, neither of them twice.
    rows, columns = ([*range(side), *range(side - 2, 0, -1)] for side in (height, width))
    for y in range(height):
        for x in range(width):
            from_y, from_x = rows[(y + down) % len(rows)], columns[(x + across) % len(columns)]
            assert np.array_equal(found[y, x], mirrored[from_y, from_x])
    assert found.dtype == np.uint8 and found.shape == pixels.shape


def test_a_batch_is_mirrored_as_its_images_are():
    batch = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    assert np.array_equal(flipped(batch), batch[:, :, ::-1])


@given(turn=st.integers(1, 8), width=st.integers(1, 12), height=st.integers(1, 12), data=st.data())
def test_a_box_of_the_upright_image_is_found_in_the_stored_one(turn, width, height, data):
    stored = np.arange(width * height).reshape(height, width, 1)
    upright = turning.upright(stored, turn)
    left, right = sorted(data.draw(st.integers(0, upright.shape[1])) for _ in range(2))
    top, bottom = sorted(data.draw(st.integers(0, upright.shape[0])) for _ in range(2))
    x, y, to_x, to_y = turning.stored_box((left, top, right, bottom), width, height, turn)
    part = turning.upright(stored[y:to_y, x:to_x], turn)
    assert np.array_equal(part, upright[top:bottom, left:right])
