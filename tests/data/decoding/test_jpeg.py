import io

import numpy as np
import photographs
import pytest
from PIL import Image

from classact.data import decode
from classact.data.decode import DamagedError, read_pixels
from classact.data.decoding import jpeg, resizing
from classact.data.decoding.frames import Frame, square

# Grey levels on average; Pillow's own reduced decoding (`draft`) is off by up to 3.4.
CLOSE = 1.5
SIZES = [(500, 375), (2000, 1500), (375, 501), (641, 427)]


def difference(one, other):
    return np.abs(one.astype(float) - other.astype(float))


def turned(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_a_full_decoding_with_an_antialiased_resize(number, size):
    file = photographs.encoded(photographs.photograph(number, size), quality=90)
    for side in (224, 64):
        found = difference(
            read_pixels(file, "RGB", side), photographs.fully_decoded(file, "RGB", (side, side))
        )
        assert found.mean() < CLOSE and np.percentile(found, 99) <= 8


def test_small_photographs_are_decoded_whole_and_large_ones_in_part():
    small, large = ((width, width) for width in (335, 1500))
    assert jpeg.enough_eighths(small, square(224)(*small)) == 8
    assert jpeg.enough_eighths(large, square(224)(*large)) == 2
    # Of a part, more is needed than of the whole.
    assert jpeg.enough_eighths(large, Frame((0, 0, 500, 500), (224, 224))) == 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_when_they_are_scaled(orientation):
    image = photographs.photograph(0, (600, 400))
    file = photographs.encoded(image, quality=95, exif=turned(orientation))
    for mode in ("RGB", "L"):
        found = difference(read_pixels(file, mode, 64), photographs.fully_decoded(file, mode, (64, 64)))
        assert found.mean() < CLOSE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_of_a_photograph_is_that_part_of_it_upright(orientation):
    file = photographs.encoded(photographs.photograph(1, (640, 480)), quality=95, exif=turned(orientation))
    whole = read_pixels(file, "RGB", None)
    box = (30, 100, 350, 420)
    part = read_pixels(file, "RGB", None, lambda width, height: Frame(box, (160, 160)))
    expected = resizing.resized(np.ascontiguousarray(whole), box, (160, 160))
    assert difference(part, expected).mean() < 1


def test_without_a_size_nothing_differs_from_pillow():
    for number in (0, 1):
        file = photographs.encoded(photographs.photograph(number, (123, 77)), quality=80)
        with Image.open(io.BytesIO(file.content)) as image:
            assert np.array_equal(read_pixels(file, "RGB", None), np.asarray(image))


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
def test_other_ways_of_encoding(options):
    file = photographs.encoded(photographs.photograph(1, (500, 375)), quality=90, **options)
    expected = photographs.fully_decoded(file, "RGB", (96, 96))
    assert difference(read_pixels(file, "RGB", 96), expected).mean() < CLOSE


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("stored", ["L", "CMYK"])
def test_grey_and_cmyk_photographs(mode, stored):
    file = photographs.encoded(photographs.photograph(0, (1000, 750)).convert(stored), quality=90)
    found = read_pixels(file, mode, 64)
    assert found.shape == (64, 64, len(mode))
    assert difference(found, photographs.fully_decoded(file, mode, (64, 64))).mean() < CLOSE


def test_what_is_cut_off_is_damaged_as_pillow_says():
    file = photographs.encoded(photographs.photograph(0, (500, 375)))
    for kept in (10, 400, len(file.content) // 2):
        with pytest.raises(DamagedError, match="truncated JPEG"):
            read_pixels(photographs.Encoded(file.content[:kept]), "RGB", 64)


def test_what_pillow_forgives_is_forgiven():
    """A marker where none should be: libjpeg-turbo warns, and Pillow takes what it gives."""
    content = bytearray(photographs.encoded(photographs.photograph(0, (500, 375))).content)
    middle = len(content) // 2
    content[middle : middle + 2] = b"\xff\xd0"
    odd = photographs.Encoded(bytes(content))
    assert jpeg.decode(odd.content, "RGB", square(64)) is None
    found = difference(read_pixels(odd, "RGB", 64), photographs.fully_decoded(odd, "RGB", (64, 64)))
    assert found.mean() < CLOSE


def test_an_enormous_image_is_refused_before_it_is_decoded(monkeypatch):
    file = photographs.encoded(photographs.photograph(0, (50, 41)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DamagedError, match="exceeds limit"):
        read_pixels(file, "RGB", 8)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (70, 3), (8, 8), (63, 65)])
def test_small_and_narrow_images(size):
    file = photographs.encoded(photographs.photograph(0, (70, 70)).resize(size), quality=100)
    for side in (1, 5, 90):
        expected = photographs.fully_decoded(file, "RGB", (side, side))
        assert difference(read_pixels(file, "RGB", side), expected).mean() < CLOSE


def test_the_file_is_not_opened_twice_for_another_format():
    class Once(photographs.Encoded):
        opened = 0

        def open(self, mode):
            Once.opened += 1
            return super().open(mode)

    png = photographs.encoded(photographs.photograph(0, (50, 40)), "PNG")
    assert read_pixels(Once(png.content), "RGB", None).shape == (40, 50, 3)
    assert Once.opened == 1
    assert decode.read_size(png) == (50, 40)
