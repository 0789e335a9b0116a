"""Image files with captions, and `captioned_folder:PATH`, where each has a text file beside it."""

import functools
import pathlib
from typing import Optional

import numpy as np

from classact.data.caption_text import CaptionedImages, captions_option
from classact.data.class_folders import refuse_splits
from classact.data.damage import MAX_SHARE
from classact.data.decode import FORMATS_IN_WORDS, SUFFIXES
from classact.data.image_files import DecodingSource, ImageFiles, RowFraming, size_and_channels
from classact.data.options import share_option
from classact.data.pairing import pair_up
from classact.data.registry import register_source
from classact.data.shown import shown
from classact.data.source import Batch, DataError, Source, checked_indices
from classact.data.walk import ListedFile, ending, files_below


class CaptionedFiles(DecodingSource):
    """Encoded images with captions; one example is one image with one of its captions.

    A damaged image is found, left out and counted as in `ImageFiles`, once for all of
    its captions.

    Args:
        found: the images and their captions; its account of what is left out becomes the source's.
        size: the side of the square images in pixels, or None to take them as they are.
        channels: 3 for RGB or 1 for grey images.
        hint: how to tell the source a size, for errors.
        damaged: the share of the images that may be damaged.

    Raises:
        DataError: if no image has a caption, too many captions are no text, or images
            are of several sizes and `size` is None.
    """

    def __init__(
        self,
        found: CaptionedImages[ListedFile],
        size: Optional[int],
        channels: int,
        hint: str,
        damaged: float = MAX_SHARE,
    ) -> None:
        found.finish()
        if not found.files:
            why = (
                "; ".join([*found.left_out.lines(), *found.left_out.remarks])
                or f"no {FORMATS_IN_WORDS} files"
            )
            raise DataError(
                f"{found.name}: no image with a caption ({why}): "
                "the caption of NAME.png is the text of NAME.txt"
            )
        self.name = found.name
        self.left_out = found.left_out
        self.accepted_damage = damaged
        self._images = ImageFiles(found.name, found.files, size, channels, hint, self.left_out, damaged)
        captions = found.captions
        self._captions = np.array([text for texts in captions for text in texts] + [None], object)[:-1]
        self._shown = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
        self.image_of = self._shown
        self.num_examples = len(self._captions)
        self.image_shape = self._images.shape
        self.num_classes = 0
        self.captioned = True
        self.has_splits = False

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of names, sizes, captions and a few pieces."""
        return self._images.digest(self._captions)

    @functools.cached_property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`."""
        same = self._images.same()
        return None if same is None else same[self._shown]

    def framed_batch(self, indices: np.ndarray, framing: Optional[RowFraming] = None) -> Batch:
        """See `augment.augmented.FramedSource`."""
        indices = checked_indices(indices, self.num_examples)
        kept, images = self._images.read(self._shown[indices], framing)
        ids = indices[kept]
        return {"id": ids, **images, "caption": self._captions[ids]}

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        return self._captions[checked_indices(indices, self.num_examples)].tolist()


@register_source("captioned_folder")
def open_captioned_folder(
    argument: str,
    split: str,
    *,
    size: Optional[str] = None,
    channels: str = "3",
    captions: str = "one",
    damaged: str = "0.01",
) -> Source:
    """`captioned_folder:PATH`, with the options of `folder:` or `?captions=lines`: all for both splits.

    An image anywhere below PATH has its caption in `NAME.txt` beside it: its whole
    text, or with `?captions=lines` one a line. Links to directories are followed; ids
    are by sorted paths. See `CaptionedFiles` for the rest.

    Raises:
        DataError: if the folder is missing, has no image with a caption, or too many
            captions are no UTF-8.
    """
    del split
    if not argument:
        raise DataError("data source 'captioned_folder' needs a directory: captioned_folder:PATH")
    folder = pathlib.Path(argument).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such directory")
    name = f"captioned_folder:{argument}"
    found = CaptionedImages[ListedFile](name, captions_option("captioned_folder", captions))
    files = files_below(str(folder), "", lambda _: True, found.left_out, set())
    images = [file for file in files if ending(file.relative) in SUFFIXES]
    refuse_splits("captioned_folder", str(folder), images)
    names = [file.relative for file in files]
    pairs, found.beside = pair_up(
        names, shown(str(folder)), found.left_out, lambda number: shown(names[number])
    )
    for image, caption in pairs:
        try:
            with files[caption].open() as text:
                content = text.read()
        except OSError as error:
            raise DataError(f"{files[caption]}: cannot be read ({error.strerror})") from error
        found.add(files[image], shown(names[caption]), content)
    return CaptionedFiles(
        found,
        *size_and_channels("captioned_folder", size, channels),
        "captioned_folder:PATH?size=N",
        share_option("captioned_folder", "damaged", damaged),
    )
