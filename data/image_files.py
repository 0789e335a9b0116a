"""The encoded images of a source, decoded as they are read."""

import abc
import functools
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, Union

import numpy as np

from classact.data import digests, duplicates
from classact.data.carried.kinds import FILE
from classact.data.damage import MAX_SHARE, accepted_damage, too_many_damaged
from classact.data.decode import DamagedError, ImageFile, read_pixels, read_size
from classact.data.decoding import pool
from classact.data.decoding.frames import Frame, Size
from classact.data.left_out import LeftOut
from classact.data.options import positive_option
from classact.data.samples import evenly
from classact.data.source import Batch, DataError, Source

# So many damaged images are logged by name, and how many there are at every so many more.
_NAMED = 100
_COUNTED = 1000
# How many files are opened, without being decoded, when a source is.
_PROBES = 1000
_KINDS = 5
# By the number of channels.
MODES = {1: "L", 3: "RGB"}

# From the place of an image in a batch, its upright width and height, and the size (width, height) that
# all are to have: what is shown of it.
RowFraming = Callable[[int, int, int, Size], Frame]

_log = logging.getLogger(__name__)


class ImageFiles:
    """The images of a source, all of one shape; `decode.read_pixels` says how they are read.

    A file that cannot be decoded is left out of what is read and counted in `skipped`,
    and by what it is in `damage`. One that is found when the source is opened is also
    counted in `left_out`, a later one logged, once; the first 100 by name. Too many of them
    stop the run: more than the share `damaged` of the files and more than 3, or all.

    Args:
        name: the source's name, for errors.
        files: the encoded images; an image's number is its place here.
        size: the side in pixels of square images: the shorter side is scaled to it
            and the middle square cut out. None takes them as they are.
        channels: 3 for RGB or 1 for grey images.
        hint: how to tell the source a size, for errors.
        left_out: takes what is found damaged now.
        damaged: the share of the files that may be damaged.
        probed: the numbers of the images that are opened now; None: 1,000 evenly over all.
        until_good: whether no more of these are opened once one is not damaged.

    Attributes:
        shape: (H, W, C) of every image.
        keeps_files: whether what is read are the files too, as far as they are smaller than the pixels.
        damage: how many damaged images were met so far, by what they are instead.
        sizes: (width, height) of those that were opened now.

    Raises:
        DataError: if images are of several sizes (found at once in a sample of the
            files, otherwise when the first one that differs is read) and `size` is None;
            if too many of the sample are damaged.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[ImageFile],
        size: Optional[int],
        channels: int,
        hint: str,
        left_out: LeftOut,
        damaged: float = MAX_SHARE,
        probed: Optional[np.ndarray] = None,
        until_good: bool = False,
    ) -> None:
        self._name = name
        self._files = files
        self._size = size
        self._mode = MODES[channels]
        self._hint = hint
        self.damage: Counter[str] = Counter()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self._accepted = damaged
        self.keeps_files = False
        self._damaged: set[int] = set()
        self._logged = 0
        self._shape_of: Optional[int] = None
        if size is not None:
            self.shape = (size, size, channels)
        if probed is None:
            probed = evenly(len(files), _PROBES)
        self._probe(channels, left_out, probed, until_good)

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

    def read(self, numbers: np.ndarray, framing: Optional[RowFraming] = None) -> tuple[np.ndarray, Batch]:
        """Decodes images, in the threads of `decoding.pool`; blocks until all are.

        Args:
            numbers: int64[N] of images, from 0.
            framing: what is shown of each; None: the middle, or all where no size was given.

        Returns:
            kept: bool[N], false for a damaged image.
            fields: `image`, uint8[M, H, W, C] of the kept ones, in order; with `keeps_files` also
                `file`, see `carried.kinds.FILE`.

        Raises:
            DataError: if an image has another shape than the others, or too many
                files have turned out to be damaged.
        """
        images = np.empty((len(numbers), *self.shape), np.uint8)
        contents = np.full(len(numbers), b"", object)

        def decode(row: int) -> Union[tuple[int, ...], DamagedError]:
            """Puts an image in its place; its shape, or what is wrong with it."""
            file = self._files[int(numbers[row])]
            if self.keeps_files:
                file = _ReadOnce(file)
            try:
                pixels = self._decoded(file, row, framing)
            except DamagedError as error:
                return error
            if pixels.shape == self.shape:
                images[row] = pixels
            if isinstance(file, _ReadOnce) and len(file.content) < pixels.nbytes:
                contents[row] = file.content
            return pixels.shape

        kept = np.array([number not in self._damaged for number in numbers.tolist()], bool)
        rows = np.flatnonzero(kept).tolist()
        # What is wrong is counted here, in the order of the batch.
        for row, found in zip(rows, pool.in_order(decode, rows), strict=True):
            number = int(numbers[row])
            if isinstance(found, DamagedError):
                kept[row] = False
                self._report(number, found)
            else:
                self._check_shape(number, found[:2])
        fields = {"image": images} | ({FILE: contents} if self.keeps_files else {})
        return kept, fields if kept.all() else {name: array[kept] for name, array in fields.items()}

    def _decoded(self, file: ImageFile, row: int, framing: Optional[RowFraming]) -> np.ndarray:
        """uint8[H, W, C] of a file; DamagedError if there is none in it."""
        if framing is None:
            return read_pixels(file, self._mode, self._size)
        size = (self.shape[1], self.shape[0])
        return read_pixels(file, self._mode, None, lambda width, height: framing(row, width, height, size))

    def _report(self, number: int, error: DamagedError) -> None:
        """Counts a damaged image, the first time that it is met."""
        if number in self._damaged:
            return
        self._skip(number, error)
        self._logged += 1
        if self._logged <= _NAMED:
            _log.warning(
                "%s (image %d) is damaged and left out: %s; %d of %d so far%s",
                self._files[number], number, error, self.skipped, len(self._files),
                "; of more only the number is logged" if self._logged == _NAMED else "",
            )  # fmt: skip
        elif self._logged % _COUNTED == 0:
            _log.warning(
                "%s: %d of %d images are damaged and left out so far",
                self._name, self.skipped, len(self._files),
            )  # fmt: skip

    def _skip(self, number: int, error: DamagedError) -> None:
        self._damaged.add(number)
        # What Pillow adds in brackets differs from file to file.
        self.damage[str(error).partition(" (")[0]] += 1
        damaged, total = len(self._damaged), len(self._files)
        if too_many_damaged(damaged, total, self._accepted):
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.damage.most_common(_KINDS))
            raise DataError(
                f"{self._name}: {damaged} of {total} images are damaged, expected "
                f"{accepted_damage(total, self._accepted)}; "
                f"the last one is image {number}, {self._files[number]}: {error}"
                + (f"; in all: {kinds}" if damaged > 1 else "")
                + "; ?damaged=SHARE accepts more"
            ) from error

    def _check_shape(self, number: int, shape: tuple[int, ...]) -> None:
        if shape != self.shape[:2]:
            first = self._files[self._shape_of or 0]
            raise DataError(
                f"{self._files[number]} (image {number}) is {shape[1]}×{shape[0]} pixels, "
                f"but {first} is {self.shape[1]}×{self.shape[0]}: say {self._hint} to resize all"
            )

    def _probe(self, channels: int, left_out: LeftOut, numbers: np.ndarray, until_good: bool) -> None:
        """Opens files: takes the shape from the first, compares the rest."""
        for number in numbers.tolist():
            try:
                width, height = read_size(self._files[number])
            except DamagedError as error:
                self._skip(number, error)
                left_out.add("damaged, or no image", f"{self._files[number]} ({error})")
                continue
            self.sizes[width, height] += 1
            if self._size is None:
                if self._shape_of is None:
                    self._shape_of, self.shape = number, (height, width, channels)
                self._check_shape(number, (height, width))
            if until_good:
                break
        tried = self.skipped + self.sizes.total()
        # Twice what is accepted of all: by chance, a sample has more than its share.
        if too_many_damaged(self.skipped // 2, tried, self._accepted) or self.skipped == tried:
            found = "; ".join(left_out.lines())
            raise DataError(f"{self._name}: {self.skipped} of {tried} images that were opened: {found}")


class _ReadOnce:
    """An image's file, whose bytes are kept when it is opened."""

    def __init__(self, file: ImageFile) -> None:
        self._file = file
        self.content = b""

    def open(self, mode: Any = "rb") -> io.BytesIO:
        with self._file.open(mode) as opened:
            self.content = opened.read()
        return io.BytesIO(self.content)


class DecodingSource(Source):
    """A source whose images are files, and decoded as they are asked for, by `_images`."""

    _images: ImageFiles

    @property
    def skipped(self) -> int:
        """See `Source.skipped`."""
        return self._images.skipped

    @property
    def damage(self) -> Counter[str]:
        """See `Source.damage`."""
        return self._images.damage

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """See `Source.sizes`."""
        return self._images.sizes

    def keep_files(self) -> None:
        """See `Source.keep_files`."""
        self._images.keeps_files = True

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; examples whose image is damaged are left out.

        Raises:
            DataError: if an image has another shape than the others or is no image, or if too
                many have turned out to be damaged.
        """
        return self.framed_batch(indices)

    @abc.abstractmethod
    def framed_batch(self, indices: np.ndarray, framing: Optional[RowFraming] = None) -> Batch:
        """See `augment.augmented.FramedSource`; without `framing` as `batch`."""


def size_and_channels(source: str, size: Optional[str], channels: str) -> tuple[Optional[int], int]:
    """Reads the options `size` and `channels` of a spec; DataError for values they cannot have."""
    if channels not in ("1", "3"):
        raise DataError(f"data source {source!r}: channels={channels}, expected 1 (grey) or 3 (RGB)")
    return None if size is None else positive_option(source, "size", size), int(channels)
