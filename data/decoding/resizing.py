"""Scales a part of an image, by a bicubic filter as wide as the scale asks for (antialiased).

`cykooz-resizer` computes Pillow's filter (a = −0.5) with the processor's vector instructions, in a
sixth of the time; where there is no wheel of it, Pillow does. They differ by rounding: by 0.15 grey
levels on average (`tests/data/decoding/test_resizing.py` has the bounds).
"""

import math
import threading

import numpy as np
from PIL import Image

from classact.data.decoding.frames import Box, Size

try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

# A resizer keeps its buffers, so each thread has its own.
_own = threading.local()


def resized(pixels: np.ndarray, box: Box, size: Size) -> np.ndarray:
    """Cuts out and scales.

    Args:
        pixels: uint8[H, W, C], C of 1 or 3.
        box: the part, within the image.
        size: (width, height) of the result.

    Returns:
        uint8[height, width, C]; the pixels themselves, maybe a view of them, where the part has
        that size and lies on whole pixels.
    """
    height, width = pixels.shape[:2]
    # By rounding, a box may end a trace outside.
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[2], float(width)), min(box[3], float(height))
    if (right - left, bottom - top) == size and left == int(left) and top == int(top):
        return pixels[int(top) : int(bottom), int(left) : int(right)]
    if cykooz_resizer is None:
        return _by_pillow(pixels, (left, top, right, bottom), size)
    # The library takes a copy: of what the filter reads, and no more.
    across, down = (_reach(*side) for side in ((right - left, size[0]), (bottom - top, size[1])))
    first, above = max(0, int(left) - across), max(0, int(top) - down)
    pixels = pixels[above : int(bottom) + down + 1, first : int(right) + across + 1]
    height, width = pixels.shape[:2]
    left, right, top, bottom = left - first, right - first, top - above, bottom - above
    kind = cykooz_resizer.PixelType.U8x3 if pixels.shape[2] == 3 else cykooz_resizer.PixelType.U8
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.catmull_rom),
        crop_box=cykooz_resizer.CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
    scaled = cykooz_resizer.ImageData(*size, kind)
    _resizer().resize(cykooz_resizer.ImageData(width, height, kind, pixels.tobytes()), scaled, options)
    return np.frombuffer(scaled.get_buffer(), np.uint8).reshape(size[1], size[0], pixels.shape[2])


def _reach(length: float, result: int) -> int:
    """How many pixels beyond a side the bicubic filter reads: twice the scale, at least two."""
    return math.ceil(2 * max(1.0, length / result)) + 1


def _by_pillow(pixels: np.ndarray, box: Box, size: Size) -> np.ndarray:
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    scaled = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))
    return scaled.reshape(size[1], size[0], pixels.shape[2])


def _resizer() -> "cykooz_resizer.Resizer":
    if not hasattr(_own, "resizer"):
        _own.resizer = cykooz_resizer.Resizer()
    return _own.resizer
