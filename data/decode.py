"""Decodes one image file: its size, and its pixels as a model takes them.

JPEG is decoded by libjpeg-turbo (`decoding.jpeg`), everything else by Pillow.

What a file is follows from its contents, never from its name. The formats are a list of
our own: none of their readers starts a program or runs what is in a file.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Optional, Protocol

import numpy as np

# Imported, these two formats are known; otherwise Pillow would import all of its readers to find them.
from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401
from PIL.ImageFile import ImageFile as OpenImage

from classact.data.decoding import jpeg
from classact.data.decoding.frames import Framing, square
from classact.data.decoding.turning import DAMAGE, on_its_side, orientation
from classact.data.file_kinds import kind_of

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FORMATS_IN_WORDS = "PNG, JPEG, WebP, GIF, BMP or TIFF"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
# What a level of a grey PNG of few bits is multiplied by when it is read, by how its pixels are stored.
_GREY_LEVELS = {"1": 255, "1;I": 255, "L;2": 85, "L;4": 17}
_PNG_TEXTS = (b"eXIf", b"iTXt", b"zTXt", b"tEXt")


class ImageFile(Protocol):
    """One encoded image: a path, or a part of a larger file; `str` is its name in errors."""

    def open(self, mode: Any) -> contextlib.AbstractContextManager[Any]:
        """Opens it for reading bytes, when `mode` is "rb"; OSError if it cannot be."""


class DamagedError(Exception):
    """A file that holds no image that can be read; the message says what it is instead."""


def read_size(file: ImageFile) -> tuple[int, int]:
    """(width, height) that `read_pixels` finds, by the header alone as a rule; DamagedError if it cannot."""
    with _reading(file) as opened, _image(opened) as image:
        if image.format == "PNG" and image.width != image.height and _has_late_texts(opened):
            image.load()
        return image.size[::-1] if on_its_side(_turn(image)) else image.size


def read_pixels(
    file: ImageFile, mode: str, size: Optional[int], framing: Optional[Framing] = None
) -> np.ndarray:
    """Decodes a file: of several pictures in it, the first.

    Transparent images are laid on white, 16-bit ones reduced to 8, and photographs
    turned as their EXIF data says. Any number of threads may call it.

    Args:
        file: any of `FORMATS`.
        mode: "RGB" or "L".
        size: None, or the side of a square: the shorter side is scaled to it and the
            middle cut out.
        framing: what is shown in place of that; None: what `size` says.

    Returns:
        uint8[H, W, C], with C of 3 or 1.

    Raises:
        DamagedError: if it cannot be decoded.
    """
    if framing is None and size is not None:
        framing = square(size)
    with _reading(file) as opened:
        start = opened.read(len(jpeg.START))
        opened.seek(0)
        if start == jpeg.START:
            pixels = jpeg.decode(opened.read(), mode, framing)
            if pixels is not None:
                return pixels
            opened.seek(0)
        with _image(opened) as image:
            return _shown(image, mode, framing)


@contextlib.contextmanager
def _reading(file: ImageFile) -> Iterator[BinaryIO]:
    """The opened file; what its disk says becomes a DamagedError."""
    try:
        with file.open("rb") as opened:
            yield opened
    except OSError as error:
        raise DamagedError(error.strerror or str(error)) from error


@contextlib.contextmanager
def _image(opened: BinaryIO) -> Iterator[OpenImage]:
    """The image in a file; what goes wrong in the block becomes a DamagedError."""
    try:
        with Image.open(opened, formats=FORMATS) as image:
            yield image
    except DAMAGE as error:
        raise DamagedError(_reason(opened, error)) from error


def _reason(opened: BinaryIO, error: Exception) -> str:
    """What a file is, and what Pillow says of it where that helps."""
    if isinstance(error, (_Unshowable, Image.DecompressionBombError)):
        return str(error)
    kind = kind_of(opened)
    # Pillow's own words for this name an object in memory.
    told = isinstance(error, Image.UnidentifiedImageError) or not str(error) or "damaged" not in kind
    return kind if told else f"{kind} ({error})"


class _Unshowable(ValueError):
    """An image whose pixels cannot be shown as 8 bits."""


def _shown(image: OpenImage, mode: str, framing: Optional[Framing]) -> np.ndarray:
    """The pixels as a person sees them, in a mode."""
    width, height = image.size
    frame = None
    # A JPEG decoder is told the scale before it begins. Of others, some tell how they lie only at the end.
    if framing is not None and image.format == "JPEG":
        sides = (height, width) if on_its_side(_turn(image)) else (width, height)
        frame = framing(*sides)
        eighths = jpeg.enough_eighths(sides, frame)
        image.draft(None, (max(1, width * eighths // 8), max(1, height * eighths // 8)))
    _scale_transparent_level(image)
    image.load()
    turn = _turn(image)
    if frame is None and framing is not None:
        width, height = image.size
        frame = framing(*((height, width) if on_its_side(turn) else (width, height)))
    pixels = np.asarray(_to_mode(image, mode))
    return jpeg.shown(pixels.reshape(*pixels.shape[:2], -1), width, height, turn, frame)


def _turn(image: OpenImage) -> int:
    # Pillow turns TIFF files itself.
    return 1 if image.format == "TIFF" else orientation(image)


def _has_late_texts(file: BinaryIO) -> bool:
    """Whether a PNG file has what can turn it behind its pixels, where its header does not show it."""
    offset, pixels = 8, False
    while True:
        file.seek(offset)
        chunk = file.read(8)
        kind = chunk[4:]
        if len(chunk) < 8 or kind == b"IEND":
            return False
        if pixels and kind in _PNG_TEXTS:
            return True
        pixels = pixels or kind == b"IDAT"
        offset += 12 + int.from_bytes(chunk[:4], "big")


def _scale_transparent_level(image: OpenImage) -> None:
    """Makes the transparent level of a PNG one of the levels that its pixels are read as.

    Pillow scales grey of fewer than 8 bits up and colours of 16 bits down, but not it.
    """
    level = image.info.get("transparency")
    stored = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
    if isinstance(level, int):
        image.info["transparency"] = level * _GREY_LEVELS.get(stored, 1)
    elif isinstance(level, tuple) and stored == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in level)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("F", "I"):
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise _Unshowable(
            f"its pixels are {kind}, of which nobody knows which is white: save it with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):
        # Pillow clips these at 255 instead of scaling them.
        levels = np.asarray(image).astype(np.uint16)
        grey = (levels >> 8).astype(np.uint8)
        grey[levels == image.info.get("transparency", -1)] = 255
        image = Image.fromarray(grey)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
