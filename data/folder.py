"""`folder:PATH`: image files, one directory a class, decoded as they are read."""

import functools
import os
import pathlib
from typing import Optional

import numpy as np

from classact.data.class_folders import list_classes
from classact.data.damage import MAX_SHARE
from classact.data.image_files import DecodingSource, ImageFiles, RowFraming, size_and_channels
from classact.data.options import share_option
from classact.data.registry import register_source
from classact.data.source import Batch, DataError, Source, checked_indices


@register_source("folder")
def open_folder(
    argument: str, split: str, *, size: Optional[str] = None, channels: str = "3", damaged: str = "0.01"
) -> Source:
    """`folder:PATH`, with `?size=64`, `?channels=1` or `?damaged=0.05`: the whole of it for both splits.

    With `size`, the shorter side is scaled to it and the middle square is cut
    out; without, all images must have one shape. `damaged` is the share of the files that may be.

    Raises:
        DataError: if there are no images, or they are of different sizes.
    """
    del split
    if not argument:
        raise DataError("data source 'folder' needs a directory: folder:PATH")
    return FolderSource(
        pathlib.Path(argument).expanduser(),
        *size_and_channels("folder", size, channels),
        share_option("folder", "damaged", damaged),
    )


class FolderSource(DecodingSource):
    """The images in `PATH/<class>/`, at any depth; classes and ids by sorted names.

    Files with an ending of `decode.SUFFIXES` count, whatever they turn out to be. Hidden
    files and directories, and what operating systems leave behind (`walk.is_junk`), are
    passed over. Links are followed; a directory is read once a class. Everything else is
    counted in `left_out`. `ImageFiles` says how images are read, and what becomes of
    damaged ones.

    Args:
        folder: the directory.
        size: the side of the square images in pixels, or None to take them as they are.
        channels: 3 for RGB or 1 for grey images.
        damaged: the share of the files that may be damaged.

    Attributes:
        files: where each example is, in the order of the ids.

    Raises:
        DataError: if the folder is missing, holds no classes (it says what was meant), or
            holds images of several sizes and `size` is None; or if too many are damaged.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        size: Optional[int] = None,
        channels: int = 3,
        damaged: float = MAX_SHARE,
    ) -> None:
        classes = list_classes(os.fspath(folder), self.left_out)
        self.files = [file for files in classes.values() for file in files]
        self._labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(x) for x in classes.values()])
        # Names that are no UTF-8 stay as they are: `shown` makes text of them.
        self.class_names = tuple(classes)
        self.name = f"folder:{folder}"
        self.accepted_damage = damaged
        self._images = ImageFiles(
            self.name, self.files, size, channels, "folder:PATH?size=N", self.left_out, damaged
        )
        self.num_examples = len(self.files)
        self.has_splits = False
        self.label_of = self._labels
        self.num_classes = len(self.class_names)
        self.image_shape = self._images.shape

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of names, sizes and a few pieces."""
        return self._images.digest()

    @functools.cached_property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`."""
        return self._images.same()

    def framed_batch(self, indices: np.ndarray, framing: Optional[RowFraming] = None) -> Batch:
        """See `augment.augmented.FramedSource`."""
        indices = checked_indices(indices, self.num_examples)
        kept, images = self._images.read(indices, framing)
        ids = indices[kept]
        return {"id": ids, **images, "label": self._labels[ids]}
