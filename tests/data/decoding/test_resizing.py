import numpy as np
import photographs
import pytest
from PIL import Image

from classact.data.decoding import resizing


def by_pillow(pixels, box, size):
    image = Image.fromarray(pixels.squeeze())
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box)).reshape(size[1], size[0], -1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((62.5, 0, 437.5, 375), (224, 224)),
        ((0, 0, 500, 375), (31, 64)),
        ((100.25, 30.75, 200.5, 111), (300, 200)),
        ((7, 9, 8, 10), (5, 5)),
    ],
)
def test_it_is_pillows_filter(mode, box, size):
    image = photographs.photograph(0, (500, 375)).convert(mode)
    pixels = np.asarray(image).reshape(375, 500, -1)
    found = np.abs(resizing.resized(pixels, box, size).astype(int) - by_pillow(pixels, box, size))
    assert found.mean() < 0.3 and np.percentile(found, 99) <= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_where_the_library_is_missing_pillow_scales(monkeypatch, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, channels), np.uint8)
    monkeypatch.setattr(resizing, "cykooz_resizer", None)
    box = (1.5, 2, 19, 28.5)
    found = resizing.resized(pixels, box, (9, 7))
    assert np.array_equal(found, by_pillow(pixels, box, (9, 7)))


def test_a_part_of_the_right_size_is_cut_out_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    assert np.array_equal(resizing.resized(pixels, (3, 4, 13, 24), (10, 20)), pixels[4:24, 3:13])
    # By rounding, a box may be a trace too large.
    assert np.array_equal(resizing.resized(pixels, (-1e-13, 0, 20 + 1e-13, 30), (20, 30)), pixels)
