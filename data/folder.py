"""`folder:PATH`: PNG and JPEG files, one directory a class, decoded as they are read."""

import functools
import pathlib
from typing import Optional

import numpy as np

from classact.data.image_files import SUFFIXES, ImageFiles, size_and_channels
from classact.data.registry import register_source
from classact.data.source import Batch, DataError, Source, checked_indices


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
    return FolderSource(pathlib.Path(argument).expanduser(), *size_and_channels("folder", size, channels))


class FolderSource(Source):
    """Images in `PATH/<class>/<name>.png`, `.jpg` or `.jpeg`; classes and ids by sorted names.

    Other files and hidden directories are ignored. `ImageFiles` says how images are
    read, and what becomes of damaged ones.

    Args:
        folder: the directory.
        size: the side of the square images in pixels, or None to take them as they are.
        channels: 3 for RGB or 1 for grey images.

    Raises:
        DataError: if the folder is missing, holds no images, or holds images of
            several sizes and `size` is None.
    """

    def __init__(self, folder: pathlib.Path, size: Optional[int] = None, channels: int = 3) -> None:
        files, self._labels, self.class_names = _list_images(folder)
        self.name = f"folder:{folder}"
        self._images = ImageFiles(self.name, files, size, channels, "folder:PATH?size=N")
        self.num_examples = len(files)
        self.has_splits = False
        self.label_of = self._labels
        self.num_classes = len(self.class_names)
        self.image_shape = self._images.shape

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of names and sizes."""
        return self._images.digest()

    @functools.cached_property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`."""
        return self._images.same()

    @property
    def skipped(self) -> int:
        """See `Source.skipped`."""
        return self._images.skipped

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; damaged files are left out.

        Raises:
            DataError: if an image has another shape than the others, or more
                than 1 % of the files have turned out to be damaged.
        """
        indices = checked_indices(indices, self.num_examples)
        kept, images = self._images.read(indices)
        ids = indices[kept]
        return {"id": ids, "image": images, "label": self._labels[ids]}


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
