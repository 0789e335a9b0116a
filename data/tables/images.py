"""Images among the values of a row, as the decoder takes them: something that can be opened."""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, Union, overload

import numpy as np
from PIL import Image

from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.walk import ListedFile

_CHANNELS = (1, 3, 4)


class ImageValues(Sequence["ImageValue"]):
    """The images of a table, which are fetched many at once and opened one by one.

    Args:
        fetch: returns the image values of rows, in their order; an OSError in place of one
            that could not be had. It is called by one thread at a time, and may block on a disk.
        rows: int64[N], the row of each image.
        name_of: what a row is called in errors.
        folder: where relative paths start.
        image_in: what of a fetched value is the image; None: all of it.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[int]], list[Any]],
        rows: np.ndarray,
        name_of: Callable[[int], str],
        folder: str,
        image_in: Optional[Callable[[Any], Any]] = None,
    ) -> None:
        self._fetch = fetch
        self._rows = rows
        self._name_of = name_of
        self._folder = folder
        self._image_in = image_in
        self._held: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> "ImageValue": ...
    @overload
    def __getitem__(self, number: slice) -> "Sequence[ImageValue]": ...
    def __getitem__(self, number: Union[int, slice]) -> "Union[ImageValue, Sequence[ImageValue]]":
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return ImageValue(self, number)

    @contextlib.contextmanager
    def held(self, numbers: np.ndarray) -> Iterator[dict[int, Any]]:
        """Fetches images, and keeps their values, by number, while they are opened."""
        wanted = np.unique(numbers)
        with self._lock:
            values = self._fetch(self._rows[wanted].tolist())
        self._held = dict(zip(wanted.tolist(), values, strict=True))
        try:
            yield self._held
        finally:
            self._held = {}

    def value(self, number: int) -> Any:
        """The value of an image; OSError if it could not be had."""
        held = self._held
        if number in held:
            found = held[number]
        else:
            with self._lock:
                found = self._fetch([int(self._rows[number])])[0]
        if isinstance(found, OSError):
            raise found
        return found

    def opened(self, number: int) -> Any:
        """An image for reading its bytes; OSError if there is none."""
        value = self.value(number)
        image = value if self._image_in is None else self._image_in(value)
        return opened(image, self.name(number), self._folder)

    def name(self, number: int) -> str:
        """What an image is called in errors."""
        return self._name_of(int(self._rows[number]))


class ImageValue:
    """One image of `ImageValues`; `str` is its name in errors."""

    def __init__(self, images: ImageValues, number: int) -> None:
        self._images = images
        self._number = number

    def open(self, mode: Any = "rb") -> Any:
        """See `decode.ImageFile.open`; DataError if its value is of a kind that is no image."""
        del mode
        return self._images.opened(self._number)

    def __str__(self) -> str:
        return shown(self._images.name(self._number))


class PathColumn(Sequence[ListedFile]):
    """Image files by the values of a column; compact, so that there may be millions.

    Args:
        paths: of the files, an Arrow array of texts; those that are not absolute start from `folder`.
        folder: a directory.
    """

    def __init__(self, paths: Any, folder: str) -> None:
        self._paths = paths
        self._folder = folder

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, number: int) -> ListedFile: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[ListedFile]: ...
    def __getitem__(self, number: Union[int, slice]) -> Union[ListedFile, Sequence[ListedFile]]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        return ListedFile(self._folder, self._paths[number].as_py())


def opened(value: Any, name: str, folder: str) -> Any:
    """Opens an image value for reading the bytes of an image file.

    Args:
        value: bytes of an image file; its path; a dict with `bytes` or `path`, as Hugging
            Face's data sets have; a PIL image; or pixels uint8[H, W] or uint8[H, W, C], also
            uint8[C, H, W], as a NumPy array or anything that becomes one.
        name: of the image, for errors.
        folder: where relative paths start.

    Raises:
        OSError: if there is no image, or its file cannot be opened.
        DataError: for a value of another kind.
    """
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise OSError("no image in the row")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return io.BytesIO(value)
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        check_local(path, name)
        return open(os.path.join(folder, path), "rb")
    if not isinstance(value, Image.Image):
        value = _of_pixels(value, name)
    return _as_file(value)


def check_local(path: str, name: str) -> None:
    """DataError if an image's path is an address of the web."""
    if "://" in path[:32]:
        raise DataError(
            f"{name}: the image is {path!r}, expected a local path: download the images first, "
            "for instance by img2dataset"
        )


def _of_pixels(value: Any, name: str) -> Image.Image:
    accepted = "expected bytes, a path, a PIL image, or pixels uint8[H, W, C] with C of 1, 3 or 4"
    pixels = np.asarray(value) if hasattr(value, "__array__") else None
    if pixels is None:
        raise DataError(f"{name}: the image is a {type(value).__name__}, {accepted}")
    if np.issubdtype(pixels.dtype, np.floating):
        accepted += ": leave out what makes numbers of pixels, such as ToTensor or Normalize: models do that"
    if pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS and pixels.shape[0] in _CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in _CHANNELS or 0 in pixels.shape:
        found = np.asarray(value)
        raise DataError(f"{name}: the image is {found.dtype}{list(found.shape)}, {accepted}")
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _as_file(image: Image.Image) -> io.BytesIO:
    """A file without compression, so that all images take one way; some 0.4 ms for 224×224 pixels."""
    content = io.BytesIO()
    if image.has_transparency_data and image.mode != "LA":
        image = image.convert("RGBA")
    elif image.mode == "HSV":
        image = image.convert("RGB")
    # BMP is twice as fast, but knows no transparency.
    image.save(content, format="BMP" if image.mode in ("L", "RGB") else "TIFF")
    content.seek(0)
    return content
