"""JPEG by libjpeg-turbo: no more of it decoded than the run's size needs.

A JPEG decoder can give an image in 8/8, 4/8, 2/8 or 1/8 of its size by computing smaller blocks. (It
has other eighths too, but for these no vector instructions: 5/8 takes longer than all of it.)
"""

import io
import math
from typing import Optional

import numpy as np
import simplejpeg
from PIL import Image

from classact.data.decoding.frames import Frame, Framing, finished
from classact.data.decoding.resizing import resized
from classact.data.decoding.turning import DAMAGE, on_its_side, orientation, stored_box, upright

START = b"\xff\xd8\xff"
# What is decoded has at least so many times the pixels a side that are asked for: with fewer, what is
# left to the resizing filter is not enough for it to be told from a full decoding.
LEAST_RATIO = 1.5
_EIGHTHS = (1, 2, 4)
# Below it, a reduced image's size does not tell by how much it was reduced.
_LEAST_SIDE = 64
_COLOURS = {"RGB": "RGB", "L": "GRAY"}
_MARKER, _APP1, _SCAN, _END = 0xFF, 0xE1, 0xDA, 0xD9


def decode(content: bytes, mode: str, framing: Optional[Framing]) -> Optional[np.ndarray]:
    """Decodes a JPEG file.

    Args:
        content: all of the file.
        mode: "RGB" or "L".
        framing: what is shown of it; None: all, in its own size.

    Returns:
        uint8[H, W, C], upright; None for what Pillow has to look at: files that are cut off or
        damaged, enormous ones, and colours other than the usual (such as CMYK).
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    if colours not in ("YCbCr", "Gray") or width * height > _most_pixels():
        return None
    turn = _turn(content)
    if turn is None:
        return None
    sides = (height, width) if on_its_side(turn) else (width, height)
    frame = None if framing is None else framing(*sides)
    eighths = 8 if frame is None else enough_eighths(sides, frame)
    try:
        pixels = _decoded(content, mode, width, height, eighths)
    except ValueError:
        return None
    return shown(pixels, width, height, turn, frame)


def enough_eighths(sides: tuple[int, int], frame: Frame) -> int:
    """In how many eighths of its size an image is decoded for a frame: 1, 2, 4 or 8."""
    if min(sides) < _LEAST_SIDE:
        return 8
    left, top, right, bottom = frame.box
    ratio = min((right - left) / frame.size[0], (bottom - top) / frame.size[1])
    return next((eighths for eighths in _EIGHTHS if ratio * eighths / 8 >= LEAST_RATIO), 8)


def shown(pixels: np.ndarray, width: int, height: int, turn: int, frame: Optional[Frame]) -> np.ndarray:
    """What a frame shows of decoded pixels, upright.

    Args:
        pixels: uint8[H, W, C] as they are stored, maybe reduced.
        width: of the stored image before it was reduced.
        height: the same.
        turn: its orientation.
        frame: None: all of it.
    """
    if frame is None:
        return np.ascontiguousarray(upright(pixels, turn))
    # A reduced image's last column and row are parts of pixels: its size does not say the scale.
    scale = 2.0 ** round(math.log2(pixels.shape[1] / width)) if width >= _LEAST_SIDE else 1.0
    left, top, right, bottom = stored_box(frame.box, width, height, turn)
    box = (left * scale, top * scale, right * scale, bottom * scale)
    size = frame.size[::-1] if on_its_side(turn) else frame.size
    return finished(np.ascontiguousarray(upright(resized(pixels, box, size), turn)), frame)


def _decoded(content: bytes, mode: str, width: int, height: int, eighths: int) -> np.ndarray:
    """The stored pixels, in eighths of their size; ValueError if anything is wrong with the file."""
    least = {}
    if eighths < 8:
        least = {"min_width": -(-width * eighths // 8), "min_height": -(-height * eighths // 8)}
    pixels: np.ndarray = simplejpeg.decode_jpeg(content, _COLOURS[mode], strict=True, **least)
    return pixels


def _most_pixels() -> int:
    """More than so many are refused by Pillow, which says so."""
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else 1 << 62


def _turn(content: bytes) -> Optional[int]:
    """Its orientation; None if Pillow cannot open it."""
    if not _says_more(content):
        return 1
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            return orientation(image)
    except DAMAGE:
        return None


def _says_more(content: bytes) -> bool:
    """Whether a file has a segment where EXIF and XMP data is, before its pixels."""
    offset = 2
    while offset + 4 <= len(content) and content[offset] == _MARKER:
        kind = content[offset + 1]
        if kind == _APP1:
            return True
        if kind in (_SCAN, _END):
            return False
        # A marker may have any number of fill bytes before it.
        length = 1 if kind == _MARKER else 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
        offset += length
    # Not as it should be: Pillow decides.
    return True
