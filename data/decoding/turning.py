"""How an image is stored, against how it is looked at: EXIF's orientations, from 1, which is upright.

A stored image is mirrored left to right, upside down, or both; then, from 5 on, laid on its side.
"""

import struct
import zlib

import numpy as np
from PIL import Image

from classact.data.decoding.frames import Box

_TAG = 0x0112
_MIRRORED = (2, 3, 7, 8)
_UPSIDE_DOWN = (3, 4, 6, 7)
_ON_ITS_SIDE = 5
# What Pillow raises on damaged files: its readers trust what a header says.
DAMAGE = (
    OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def orientation(image: Image.Image) -> int:
    """As EXIF or XMP data says; 1 too if it is damaged, or says nothing that is known."""
    try:
        # A PNG file's own method would decode all pixels.
        found = Image.Image.getexif(image).get(_TAG, 1)
    except DAMAGE:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def on_its_side(turn: int) -> bool:
    """Whether width and height change places."""
    return turn >= _ON_ITS_SIDE


def stored_box(box: Box, width: int, height: int, turn: int) -> Box:
    """Where a box of the upright image is in the stored one, which has a width and a height."""
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if on_its_side(turn) else box
    if turn in _MIRRORED:
        left, right = width - right, width - left
    if turn in _UPSIDE_DOWN:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turns stored pixels [H, W, C]: [W, H, C] of what lies on its side; may be a view."""
    rows = slice(None, None, -1 if turn in _UPSIDE_DOWN else 1)
    columns = slice(None, None, -1 if turn in _MIRRORED else 1)
    turned = pixels[rows, columns]
    return turned.swapaxes(0, 1) if on_its_side(turn) else turned
