"""From what a replay has carried to the images that were scored, to the byte."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional, Protocol

import numpy as np

from classact.data.augment.augmented import Augmented
from classact.data.carried.kinds import CHECK, CONTENT, CONTENT_BYTES, EPOCH
from classact.data.carried.sealing import checks
from classact.data.decode import DamagedError, read_pixels
from classact.data.decoding import pool
from classact.data.decoding.frames import Frame, middle_box
from classact.data.image_files import MODES, RowFraming
from classact.data.recorded_order import Places
from classact.data.source import Batch, DataError, Source
from classact.data.views import begin_epoch

# So many images are read at once: what is held of them besides a batch's own is bounded so.
_AT_ONCE = 256
_CARRIED = (CHECK, CONTENT, CONTENT_BYTES, EPOCH)


class Opener(Protocol):
    """Makes images of what was carried; of one thread at a time."""

    @property
    def replaced(self) -> int:
        """Examples whose image could not be had; another one of their batch was taken twice."""

    def __call__(self, batch: Mapping[str, np.ndarray], progressed: Callable[[], None]) -> Batch:
        """Returns a batch with `image`, uint8[B, H, W, C], in place of what was carried.

        Blocks while images are read and decoded, in the threads of `decoding.pool`.

        Args:
            batch: of the replay's records.
            progressed: called after every few hundred images.

        Raises:
            DataError: if an image is not what was scored; it names the example.
        """


class FromFiles:
    """Decodes the files that were carried; see `Opener`."""

    # A file that was decoded once is decoded again, or it is an error.
    replaced = 0

    def __init__(self, name: str, image_shape: tuple[int, int, int], augment: str, seed: int) -> None:
        """Decodes nothing yet.

        Args:
            name: of the source, for errors.
            image_shape: (H, W, C) of the images.
            augment: as of the source that was scored; see `augment.recipe`.
            seed: of it.

        Raises:
            augment.recipe.AugmentError: if `augment` is not understood.
        """
        self._files = _CarriedFiles(name, image_shape)
        # Also without any augmentation: it then shows what a source shows.
        self._shown = Augmented(self._files, augment, seed, tried=False)

    def __call__(
        self, batch: Mapping[str, np.ndarray], progressed: Callable[[], None] = lambda: None
    ) -> Batch:
        """See `Opener`."""
        ids, contents, sizes = batch["id"], batch[CONTENT], batch[CONTENT_BYTES]
        images = np.empty((len(ids), *self._files.image_shape), np.uint8)
        pixels = sizes == 0
        images[pixels] = contents[pixels].reshape(-1, *self._files.image_shape)
        for epoch, rows in _in_parts(batch[EPOCH], np.flatnonzero(~pixels), progressed):
            self._files.hold(ids[rows], [contents[row, : sizes[row]].tobytes() for row in rows.tolist()])
            self._shown.begin_epoch(epoch)
            images[rows] = self._shown.batch(np.arange(len(rows)))["image"]
        _check(self._files.name, ids, images, batch[CHECK])
        return with_images(batch, images)


class FromSource:
    """Reads the images of examples from a source, by their ids; see `Opener`.

    An example that the source finds damaged here, although it was scored elsewhere, is counted in `replaced`,
    and logged by the source; in its place comes the next one of the batch, with its own label or caption.
    Too many of them are an error of the source's, and so is a batch of which nothing is left.
    """

    def __init__(self, source: Source) -> None:
        """Reads nothing yet.

        Args:
            source: as it was scored, augmented alike; it may be a larger part of the data.
        """
        self._source = source
        self._places = Places(source)
        self._replaced = 0

    @property
    def replaced(self) -> int:
        """See `Opener`."""
        return self._replaced

    def __call__(
        self, batch: Mapping[str, np.ndarray], progressed: Callable[[], None] = lambda: None
    ) -> Batch:
        """See `Opener`."""
        ids = batch["id"]
        places = self._places(ids)
        if (places < 0).any():
            raise DataError(f"{self._source.name}: it has no example with id {ids[places < 0][0]} here")
        images = np.empty((len(ids), *self._source.image_shape), np.uint8)
        there = np.zeros(len(ids), bool)
        for epoch, rows in _in_parts(batch[EPOCH], np.arange(len(ids)), progressed):
            begin_epoch(self._source, epoch)
            part = self._source.batch(places[rows])
            # Which are left out is the same for all rows of an image.
            found = rows[np.isin(ids[rows], part["id"])]
            images[found], there[found] = part["image"], True
        if there.all():
            _check(self._source.name, ids, images, batch[CHECK])
            return with_images(batch, images)
        _check(self._source.name, ids[there], images[there], batch[CHECK][there])
        return self._filled(with_images(batch, images), there)

    def _filled(self, batch: Batch, there: np.ndarray) -> Batch:
        """The next example that is there in place of each that is not."""
        left = np.flatnonzero(there)
        if not len(left):
            raise DataError(
                f"{self._source.name}: none of the {len(there)} images of a batch can be read here, such as "
                f"that of the example with id {batch['id'][0]}"
            )
        self._replaced += len(there) - len(left)
        following = left[np.searchsorted(left, np.arange(len(there))) % len(left)]
        return {name: array[following] for name, array in batch.items()}


class _CarriedFiles(Source):
    """The files of a batch as a source, so that they are augmented as any other's are; index: the row."""

    def __init__(self, name: str, image_shape: tuple[int, int, int]) -> None:
        self.name = name
        self.image_shape = image_shape
        self.num_examples = self.num_classes = 0
        self._mode = MODES[image_shape[2]]
        self._size = (image_shape[1], image_shape[0])
        self._ids = np.empty(0, np.int64)
        self._contents: list[bytes] = []

    def hold(self, ids: np.ndarray, contents: list[bytes]) -> None:
        """Takes the files of examples in place of those before."""
        self._ids, self._contents = ids, contents

    def ids(self, indices: np.ndarray) -> np.ndarray:
        return self._ids[indices]

    def batch(self, indices: np.ndarray) -> Batch:
        return self.framed_batch(indices)

    def framed_batch(self, indices: np.ndarray, framing: Optional[RowFraming] = None) -> Batch:
        """See `augment.augmented.FramedSource`."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        frame = framing or _middle

        def decode(row: int) -> None:
            index = int(indices[row])
            file = _File(self._contents[index])
            try:
                images[row] = read_pixels(
                    file, self._mode, None, lambda width, height: frame(row, width, height, self._size)
                )
            except DamagedError as error:
                raise DataError(
                    f"{self.name}: the file of the example with id {self._ids[index]} was decoded when it "
                    f"was scored, but not by the learner: {error}"
                ) from error

        for _ in pool.in_order(decode, range(len(indices))):
            pass
        return {"id": self._ids[indices], "image": images}


class _File:
    """See `decode.ImageFile`."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self, mode: Any = "rb") -> io.BytesIO:
        del mode
        return io.BytesIO(self._content)


def _middle(row: int, width: int, height: int, size: tuple[int, int]) -> Frame:
    del row
    return Frame(middle_box(width, height, size), size)


def _in_parts(
    epochs: np.ndarray, rows: np.ndarray, progressed: Callable[[], None]
) -> Iterator[tuple[int, np.ndarray]]:
    """The rows in parts of one epoch each; tells after each of them."""
    for epoch in np.unique(epochs[rows]).tolist():
        own = rows[epochs[rows] == epoch]
        for start in range(0, len(own), _AT_ONCE):
            yield epoch, own[start : start + _AT_ONCE]
            progressed()


def _check(name: str, ids: np.ndarray, images: np.ndarray, expected: np.ndarray) -> None:
    """DataError unless the images are what was scored."""
    wrong = np.flatnonzero(checks(images) != expected)
    if len(wrong):
        raise DataError(
            f"{name}: the image of the example with id {ids[wrong[0]]} is not the one that was scored "
            f"({len(wrong)} of {len(ids)} in a batch): the learner's host has other data, or decodes them by "
            "other versions of the libraries; replay.images=pixels needs neither"
        )


def with_images(batch: Mapping[str, np.ndarray], images: np.ndarray) -> Batch:
    """A batch of the replay with images uint8[B, H, W, C] in place of what was carried of them."""
    return {**{name: array for name, array in batch.items() if name not in _CARRIED}, "image": images}
