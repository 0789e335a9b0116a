import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from classact.data.augment import recipe
from classact.data.augment.recipe import AugmentError, Recipe, parse
from classact.data.decoding.frames import middle_box

sides = st.integers(1, 4000)
rows = st.integers(0, 10_000)


def frame(chosen, row, width, height, size):
    return chosen.frame(chosen.numbers(3, 5, np.array([row]))[0], width, height, size)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Recipe()),
        ("flip", Recipe(flip=True)),
        ("inception+flip", Recipe("inception", True)),
        ("flip+crop", Recipe("crop", True)),
        ("resize_small_crop", Recipe("resize_small_crop")),
        ("flip+os.path:join", Recipe("", True, ("os.path:join",))),
    ],
)
def test_what_a_configuration_says(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no ''"),
        ("flips", "there is no 'flips', did you mean flip"),
        ("inception+", "there is no ''"),
        ("crop+inception", "two crops, crop and inception"),
        ("flip+flip", "flip twice"),
        ("none+flip", "there is no 'none'"),
        ("Inception", "did you mean inception"),
        ("no_such_module:f", "there is no module no_such_module"),
        ("os.path:nothing", "os.path has no 'nothing'"),
        ("os:name", "os:name is no function, but a str"),
    ],
)
def test_what_it_may_not_say(text, said):
    with pytest.raises(AugmentError, match=said):
        parse(text)


@given(row=rows, width=sides, height=sides, across=st.integers(1, 300), down=st.integers(1, 300))
def test_a_random_part_is_in_the_image_and_of_the_said_area_and_proportions(row, width, height, across, down):
    shown = frame(Recipe("inception"), row, width, height, (across, down))
    left, top, right, bottom = shown.box
    assert shown.size == (across, down) and shown.shift == (0, 0)
    assert -1e-9 <= left < right <= width + 1e-9 and -1e-9 <= top < bottom <= height + 1e-9
    if shown.box != middle_box(width, height, (across, down)):
        wide, high = right - left, bottom - top
        assert 0.08 - 1e-9 <= wide * high / (width * height) <= 1 + 1e-9
        assert 3 / 4 - 1e-9 <= wide / high * down / across <= 4 / 3 + 1e-9


def test_random_parts_spread_over_area_proportions_and_place():
    chosen = Recipe("inception")
    numbers = chosen.numbers(0, 0, np.arange(4000))
    boxes = np.array([chosen.frame(row, 400, 400, (64, 64)).box for row in numbers])
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, logarithm = wide * high / 400**2, np.log(wide / high)
    # Of a square all tries fit but those that are too wide or too high, which are the large ones.
    small = share < 0.5
    assert abs(np.mean(share[small]) - 0.29) < 0.01
    assert abs(np.mean(logarithm)) < 0.01 and abs(np.std(logarithm[small]) - np.log(16 / 9) / 12**0.5) < 0.01
    place = boxes[:, 0] / (400 - wide)
    assert abs(np.mean(place) - 0.5) < 0.02 and abs(np.std(place) - 12**-0.5) < 0.01


@given(row=rows, width=sides, height=sides, size=st.integers(1, 300))
def test_a_square_is_moved_along_the_longer_side(row, width, height, size):
    left, top, right, bottom = frame(Recipe("resize_small_crop"), row, width, height, (size, size)).box
    small = min(width, height)
    assert abs(right - left - small) < 1e-6 and abs(bottom - top - small) < 1e-6
    assert left >= -1e-9 and right <= width + 1e-6 and top >= -1e-9 and bottom <= height + 1e-6


def test_moved_squares_are_anywhere():
    chosen = Recipe("resize_small_crop")
    lefts = [chosen.frame(row, 300, 100, (50, 50)).box[0] for row in chosen.numbers(0, 0, np.arange(2000))]
    assert np.histogram(lefts, bins=4, range=(0, 200))[0].min() > 430


def test_a_padded_crop_moves_by_up_to_an_eighth_and_every_place_is_as_likely():
    chosen = Recipe("crop")
    shifts = [chosen.shift(row, (32, 16)) for row in chosen.numbers(1, 1, np.arange(9000))]
    across, down = np.transpose(shifts)
    assert set(across) == set(range(-4, 5)) and set(down) == set(range(-2, 3))
    assert np.bincount(across + 4).min() > 880 and np.bincount(down + 2).min() > 1650


@given(row=rows, size=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_it_stays_within_one_reflection(row, size):
    assume(row % 2 == 0)
    across, down = frame(Recipe("crop"), row, 50, 50, size).shift
    assert abs(across) < size[0] and abs(down) < size[1]


def test_half_of_the_images_are_mirrored():
    chosen = Recipe(flip=True)
    flips = [chosen.flips(row) for row in chosen.numbers(0, 0, np.arange(4000))]
    assert abs(np.mean(flips) - 0.5) < 0.04
    assert not any(Recipe("inception").flips(row) for row in Recipe().numbers(0, 0, np.arange(50)))


def test_without_a_recipe_it_is_the_middle():
    assert frame(Recipe(), 3, 400, 300, (50, 50)).box == (50, 0, 350, 300)
    assert "inception" in recipe.ACCEPTED
