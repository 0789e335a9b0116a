"""PNG and JPEG files, decoded as they are read; for the sources that hold some."""

import contextlib
import functools
import logging
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Optional, Protocol

import numpy as np
from PIL import Image, ImageOps

from classact.data import digests, duplicates
from classact.data.options import positive_option
from classact.data.source import DataError

MAX_SKIPPED_SHARE = 0.01
SUFFIXES = (".png", ".jpg", ".jpeg")
# How many files are opened, without being decoded, when a source is.
_PROBES = 1000
_MODES = {1: "L", 3: "RGB"}
# What Pillow raises on damaged files of these two formats.
_DAMAGE = (
    OSError, SyntaxError, ValueError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

_log = logging.getLogger(__name__)


class ImageFile(Protocol):
    """One encoded image: a path, or a part of a larger file; `str` is its name in errors."""

    def open(self, mode: Any) -> contextlib.AbstractContextManager[Any]:
        """Opens it for reading bytes, when `mode` is "rb"; OSError if it cannot be."""


class ImageFiles:
    """The images of a source, all of one shape.

    Transparent images are laid on white, 16-bit ones reduced to 8, and photographs
    turned as their EXIF data says.

    A file that cannot be decoded is left out of what is read, counted in `skipped`
    and logged once, by name. More than 1 % of the files stops the run.

    Args:
        name: the source's name, for errors.
        files: the encoded images; an image's number is its place here.
        size: the side in pixels of square images: the shorter side is scaled to it
            and the middle square cut out. None takes them as they are.
        channels: 3 for RGB or 1 for grey images.
        hint: how to tell the source a size, for errors.

    Attributes:
        shape: (H, W, C) of every image.

    Raises:
        DataError: if images are of several sizes (found at once in a sample of the
            files, otherwise when the first one that differs is read) and `size` is None.
    """

    def __init__(
        self, name: str, files: Sequence[ImageFile], size: Optional[int], channels: int, hint: str
    ) -> None:
        self._name = name
        self._files = files
        self._size = size
        self._mode = _MODES[channels]
        self._hint = hint
        self._damaged: set[int] = set()
        self._shape_of: Optional[int] = None
        if size is not None:
            self.shape = (size, size, channels)
        self._probe(channels)

    @property
    def skipped(self) -> int:
        """The number of different damaged images met so far."""
        return len(self._damaged)

    def digest(self, texts: Iterable[str] = ()) -> str:
        """See `Source.digest`; of names, sizes and texts that belong to them."""
        return digests.of_places(self._places, texts)

    def same(self) -> Optional[np.ndarray]:
        """See `duplicates.equal_files`; may read each file once."""
        return duplicates.equal_files(self._places)

    @functools.cached_property
    def _places(self) -> list[digests.Place]:
        return digests.places_of(self._files)

    def read(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decodes images.

        Args:
            numbers: int64[N] of images, from 0.

        Returns:
            kept: bool[N], false for a damaged image.
            images: uint8[M, H, W, C] of the kept ones, in order.

        Raises:
            DataError: if an image has another shape than the others, or more
                than 1 % of the files have turned out to be damaged.
        """
        images = [None if i in self._damaged else self._read(i) for i in numbers.tolist()]
        kept = [image for image in images if image is not None]
        pixels = np.stack(kept) if kept else np.empty((0, *self.shape), np.uint8)
        return np.array([image is not None for image in images], bool), pixels

    def _read(self, number: int) -> Optional[np.ndarray]:
        """uint8[H, W, C] of a file, or None if it is damaged."""
        try:
            with self._files[number].open("rb") as file:
                pixels = _decode(file, self._mode, self._size)
        except _DAMAGE as error:
            self._skip(number, error)
            return None
        self._check_shape(number, pixels.shape[:2])
        return pixels

    def _skip(self, number: int, error: Exception) -> None:
        self._damaged.add(number)
        file, limit = self._files[number], MAX_SKIPPED_SHARE * len(self._files)
        if len(self._damaged) > limit:
            raise DataError(
                f"{self._name}: {len(self._damaged)} of {len(self._files)} images are damaged, more than "
                f"{MAX_SKIPPED_SHARE:.0%}; the last one is image {number}, {file}: {error}"
            ) from error
        _log.warning("%s (image %d) is damaged and left out: %s", file, number, error)

    def _check_shape(self, number: int, shape: tuple[int, ...]) -> None:
        if shape != self.shape[:2]:
            first = self._files[self._shape_of or 0]
            raise DataError(
                f"{self._files[number]} (image {number}) is {shape[1]}×{shape[0]} pixels, "
                f"but {first} is {self.shape[1]}×{self.shape[0]}: say {self._hint} to resize all"
            )

    def _probe(self, channels: int) -> None:
        """Opens files evenly over all: takes the shape from the first, compares the rest."""
        for number in np.unique(np.linspace(0, len(self._files) - 1, _PROBES).astype(np.int64)).tolist():
            try:
                with self._files[number].open("rb") as file:
                    width, height = _oriented_size(file)
            except _DAMAGE as error:
                self._skip(number, error)
                continue
            if self._size is None:
                if self._shape_of is None:
                    self._shape_of, self.shape = number, (height, width, channels)
                self._check_shape(number, (height, width))


def size_and_channels(source: str, size: Optional[str], channels: str) -> tuple[Optional[int], int]:
    """Reads the options `size` and `channels` of a spec; DataError for values they cannot have."""
    if channels not in ("1", "3"):
        raise DataError(f"data source {source!r}: channels={channels}, expected 1 (grey) or 3 (RGB)")
    return None if size is None else positive_option(source, "size", size), int(channels)


def _oriented_size(file: BinaryIO) -> tuple[int, int]:
    """(width, height) of a file as `_decode` would turn it; reads the header only."""
    with Image.open(file, formats=("PNG", "JPEG")) as image:
        # EXIF orientations from 5 on lay the image on its side.
        turned = image.format != "PNG" and image.getexif().get(0x0112, 1) >= 5
        return image.size[::-1] if turned else image.size


def _decode(opened: BinaryIO, mode: str, size: Optional[int]) -> np.ndarray:
    """uint8[H, W, C] of a file; raises one of `_DAMAGE` if it cannot be decoded."""
    with Image.open(opened, formats=("PNG", "JPEG")) as file:
        if size is not None:
            # Lets the JPEG decoder scale down by a power of two, never below the size.
            file.draft(None, (size, size))
        image: Image.Image = file
        image.load()
        if file.format != "PNG":
            image = ImageOps.exif_transpose(image)
        image = _to_mode(image, mode)
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey values at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
