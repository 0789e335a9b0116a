"""Which part of an image is shown, and as what: all that an augmentation and a decoder must agree on."""

import dataclasses
from collections.abc import Callable

import numpy as np

# (left, top, right, bottom) in pixels from the upper left corner; fractions are meant.
Box = tuple[float, float, float, float]
# (width, height) in pixels.
Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Frame:
    """A part of an upright image, scaled to a size; then mirrored, then moved.

    Attributes:
        box: the part.
        size: what it is scaled to.
        flip: whether left and right are exchanged.
        shift: by how many pixels of `size` the window moves right and down; what is outside of
            the image is its reflection at the border. Less than `size`.
    """

    box: Box
    size: Size
    flip: bool = False
    shift: tuple[int, int] = (0, 0)


# From an upright image's width and height to what is shown of it.
Framing = Callable[[int, int], Frame]


def middle_box(width: int, height: int, size: Size) -> Box:
    """The largest part in the middle of an image that has the proportions of `size`."""
    scale = min(width / size[0], height / size[1])
    left, top = (width - size[0] * scale) / 2, (height - size[1] * scale) / 2
    return left, top, width - left, height - top


def square(size: int) -> Framing:
    """The middle square of an image, scaled to `size` pixels a side: what is measured on."""
    return lambda width, height: Frame(middle_box(width, height, (size, size)), (size, size))


def finished(pixels: np.ndarray, frame: Frame) -> np.ndarray:
    """Mirrors and moves what was cut out and scaled: uint8[H, W, C], of the same shape."""
    if frame.flip:
        pixels = flipped(pixels)
    if frame.shift != (0, 0):
        height, width = pixels.shape[:2]
        across, down = frame.shift
        beyond = (max(0, -down), max(0, down)), (max(0, -across), max(0, across)), (0, 0)
        top, left = max(0, down), max(0, across)
        pixels = np.pad(pixels, beyond, mode="reflect")[top : top + height, left : left + width]
    return pixels


def flipped(pixels: np.ndarray) -> np.ndarray:
    """Exchanges left and right of uint8[..., H, W, C]; a copy."""
    channels = pixels.shape[-1]
    # A pixel as one item: several times as fast as byte by byte.
    items = np.ascontiguousarray(pixels).view(f"V{channels}")[..., 0]
    return np.ascontiguousarray(items[..., ::-1])[..., None].view(np.uint8)
