"""`folder:PATH`: PNG and JPEG files, one directory a class, decoded as they are read."""

import logging
import pathlib
import struct
import zlib
from typing import Optional

import numpy as np
from PIL import Image, ImageOps

from classact.data.options import positive_option
from classact.data.registry import register_source
from classact.data.source import Batch, DataError, Source, checked_indices

MAX_SKIPPED_SHARE = 0.01
SUFFIXES = (".png", ".jpg", ".jpeg")
# How many files are opened, without being decoded, when the source is.
_PROBES = 1000
_MODES = {1: "L", 3: "RGB"}
# What Pillow raises on damaged files of these two formats.
_DAMAGE = (
    OSError, SyntaxError, ValueError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

_log = logging.getLogger(__name__)


@register_source("folder")
def open_folder(argument: str, split: str, *, size: Optional[str] = None, channels: str = "3") -> Source:
    """`folder:PATH`, `folder:PATH?size=64` or `folder:PATH?channels=1`: the whole of it for both splits.

    With `size`, the shorter side is scaled to it and the middle square is cut
    out; without, all images must have one shape.

    Raises:
        DataError: if there are no images, or they are of different sizes.
    """
    del split
    if not argument:
        raise DataError("data source 'folder' needs a directory: folder:PATH")
    if channels not in ("1", "3"):
        raise DataError(f"data source 'folder': channels={channels}, expected 1 (grey) or 3 (RGB)")
    side = None if size is None else positive_option("folder", "size", size)
    return FolderSource(pathlib.Path(argument).expanduser(), side, int(channels))


class FolderSource(Source):
    """Images in `PATH/<class>/<name>.png`, `.jpg` or `.jpeg`; classes and ids by sorted names.

    Other files and hidden directories are ignored. Transparent images are laid on
    white, 16-bit ones reduced to 8, and photographs turned as their EXIF data says.

    A file that cannot be decoded is left out of the batch, counted in `skipped`
    and logged once, by name. More than 1 % of the files stops the run.

    Args:
        folder: the directory.
        size: the side of the square images in pixels, or None to take them as they are.
        channels: 3 for RGB or 1 for grey images.

    Raises:
        DataError: if the folder is missing, holds no images, or holds images of
            several sizes (found at once in a sample of the files, otherwise when
            `batch` reads the first one that differs) and `size` is None.
    """

    def __init__(self, folder: pathlib.Path, size: Optional[int] = None, channels: int = 3) -> None:
        self._files, self._labels, self.class_names = _list_images(folder)
        self._size = size
        self._mode = _MODES[channels]
        self._damaged: set[int] = set()
        self.name = f"folder:{folder}"
        self.num_examples = len(self._files)
        self.num_classes = len(self.class_names)
        self._shape_of: Optional[pathlib.Path] = None
        if size is not None:
            self.image_shape = (size, size, channels)
        self._probe(channels)

    @property
    def skipped(self) -> int:
        """See `Source.skipped`."""
        return len(self._damaged)

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; damaged files are left out.

        Raises:
            DataError: if an image has another shape than the others, or more
                than 1 % of the files have turned out to be damaged.
        """
        kept, images = [], []
        for index in checked_indices(indices, self.num_examples).tolist():
            image = None if index in self._damaged else self._read(index)
            if image is not None:
                kept.append(index)
                images.append(image)
        pixels = np.stack(images) if images else np.empty((0, *self.image_shape), np.uint8)
        ids = np.array(kept, np.int64)
        return {"id": ids, "image": pixels, "label": self._labels[ids]}

    def _read(self, index: int) -> Optional[np.ndarray]:
        """uint8[H, W, C] of a file, or None if it is damaged."""
        path = self._files[index]
        try:
            pixels = _decode(path, self._mode, self._size)
        except _DAMAGE as error:
            self._skip(index, error)
            return None
        self._check_shape(index, pixels.shape[:2])
        return pixels

    def _skip(self, index: int, error: Exception) -> None:
        self._damaged.add(index)
        path, limit = self._files[index], MAX_SKIPPED_SHARE * self.num_examples
        _log.warning("%s (example %d) is damaged and left out: %s", path, index, error)
        if len(self._damaged) > limit:
            raise DataError(
                f"{self.name}: {len(self._damaged)} of {self.num_examples} images are damaged, more than "
                f"{MAX_SKIPPED_SHARE:.0%}; the last one is example {index}, {path}: {error}"
            ) from error

    def _check_shape(self, index: int, shape: tuple[int, ...]) -> None:
        if shape != self.image_shape[:2]:
            raise DataError(
                f"{self._files[index]} (example {index}) is {shape[1]}×{shape[0]} pixels, "
                f"but {self._shape_of} is {self.image_shape[1]}×{self.image_shape[0]}: "
                "say folder:PATH?size=N to resize all"
            )

    def _probe(self, channels: int) -> None:
        """Opens files evenly over the folder: takes the shape from the first, compares the rest."""
        for index in np.unique(np.linspace(0, self.num_examples - 1, _PROBES).astype(np.int64)).tolist():
            path = self._files[index]
            try:
                width, height = _oriented_size(path)
            except _DAMAGE as error:
                self._skip(index, error)
                continue
            if self._size is None:
                if self._shape_of is None:
                    self._shape_of, self.image_shape = path, (height, width, channels)
                self._check_shape(index, (height, width))


def _list_images(folder: pathlib.Path) -> tuple[list[pathlib.Path], np.ndarray, tuple[str, ...]]:
    """Files, labels int32[N] and class names, in sorted order."""
    try:
        classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        files, labels = [], []
        for label, directory in enumerate(classes):
            images = sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES)
            files += images
            labels += [label] * len(images)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be listed ({error.strerror})") from error
    if not files:
        raise DataError(
            f"{folder}: no PNG or JPEG files in its {len(classes)} directories (one directory a class)"
        )
    return files, np.array(labels, np.int32), tuple(path.name for path in classes)


def _oriented_size(path: pathlib.Path) -> tuple[int, int]:
    """(width, height) of a file as `_decode` would turn it; reads the header only."""
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        # EXIF orientations from 5 on lay the image on its side.
        turned = image.format != "PNG" and image.getexif().get(0x0112, 1) >= 5
        return image.size[::-1] if turned else image.size


def _decode(path: pathlib.Path, mode: str, size: Optional[int]) -> np.ndarray:
    """uint8[H, W, C] of a file; raises one of `_DAMAGE` if it cannot be decoded."""
    with Image.open(path, formats=("PNG", "JPEG")) as file:
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
