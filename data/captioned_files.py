"""Image files with captions, and `captioned_folder:PATH`, where each has a text file beside it."""

import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import Optional

import numpy as np

from classact.data.image_files import SUFFIXES, ImageFile, ImageFiles, size_and_channels
from classact.data.registry import register_source
from classact.data.source import Batch, DataError, Source, checked_indices

_log = logging.getLogger(__name__)


class CaptionedFiles(Source):
    """Encoded images with captions; one example is one image with one of its captions.

    An image without captions is left out when the source is opened, counted in
    `without_caption`, and their number is logged. A damaged one is found, left out
    and counted as in `ImageFiles`, once for all of its captions.

    Args:
        name: the source's name.
        files: the encoded images.
        captions: the captions of each image, none of them empty.
        size: the side of the square images in pixels, or None to take them as they are.
        channels: 3 for RGB or 1 for grey images.
        hint: how to tell the source a size, for errors.

    Attributes:
        without_caption: the number of images left out as they have no caption.

    Raises:
        DataError: if no image has a caption, or they are of several sizes and
            `size` is None.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[ImageFile],
        captions: Sequence[Sequence[str]],
        size: Optional[int],
        channels: int,
        hint: str,
    ) -> None:
        kept = [(file, texts) for file, texts in zip(files, captions, strict=True) if texts]
        self.without_caption = len(files) - len(kept)
        if not kept:
            raise DataError(
                f"{name}: no image with a caption among its {len(files)} PNG and JPEG files: "
                "the captions of NAME.png are the lines of NAME.txt"
            )
        if self.without_caption:
            _log.warning("%s: %d of %d images have no caption", name, self.without_caption, len(files))
        self.name = name
        self._images = ImageFiles(name, [file for file, _ in kept], size, channels, hint)
        self._captions = np.array([text for _, texts in kept for text in texts] + [None], object)[:-1]
        self._shown = np.repeat(np.arange(len(kept)), [len(texts) for _, texts in kept])
        self.image_of = self._shown
        self.num_examples = len(self._captions)
        self.image_shape = self._images.shape
        self.num_classes = 0
        self.captioned = True
        self.has_splits = False

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of names, sizes and captions."""
        return self._images.digest(self._captions)

    @functools.cached_property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`."""
        same = self._images.same()
        return None if same is None else same[self._shown]

    @property
    def skipped(self) -> int:
        """See `Source.skipped`."""
        return self._images.skipped

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; pairs whose image is damaged are left out.

        Raises:
            DataError: if an image has another shape than the others, or more
                than 1 % of the files have turned out to be damaged.
        """
        indices = checked_indices(indices, self.num_examples)
        kept, images = self._images.read(self._shown[indices])
        ids = indices[kept]
        return {"id": ids, "image": images, "caption": self._captions[ids]}

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        return self._captions[checked_indices(indices, self.num_examples)].tolist()


@register_source("captioned_folder")
def open_captioned_folder(
    argument: str, split: str, *, size: Optional[str] = None, channels: str = "3"
) -> Source:
    """`captioned_folder:PATH`, with `?size=64` or `?channels=1`: all of it for both splits.

    An image `NAME.png`, `.jpg` or `.jpeg` anywhere below PATH has its captions in
    `NAME.txt` beside it, one a line. Hidden files and directories are ignored; ids
    are by sorted paths. See `CaptionedFiles` for the rest.

    Raises:
        DataError: if the folder is missing, or has no image with a caption.
    """
    del split
    if not argument:
        raise DataError("data source 'captioned_folder' needs a directory: captioned_folder:PATH")
    folder = pathlib.Path(argument).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such directory")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return CaptionedFiles(
        f"captioned_folder:{argument}",
        files,
        [_captions_beside(path) for path in files],
        *size_and_channels("captioned_folder", size, channels),
        "captioned_folder:PATH?size=N",
    )


def captions_of(content: bytes) -> list[str]:
    """The captions in a text file: its lines that are not empty, without white space around them.

    It is read as UTF-8; bytes that are not become U+FFFD.
    """
    lines = content.decode(errors="replace").removeprefix("\ufeff").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _captions_beside(image: pathlib.Path) -> list[str]:
    try:
        return captions_of(image.with_suffix(".txt").read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
