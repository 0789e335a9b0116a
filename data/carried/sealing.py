"""From a batch that has been scored to the fields of its records."""

import zlib
from collections.abc import Mapping

import numpy as np

from classact.data.carried.kinds import (
    CHECK,
    CONTENT,
    CONTENT_BYTES,
    ENCODED,
    EPOCH,
    FILE,
    IDS,
    IMAGES,
    PIXELS,
)
from classact.data.decoding import pool
from classact.data.source import Batch
from classact.data.views import SourceView


class InEpochs(SourceView):
    """Adds to each example of which epoch it is, so that whoever reads it again augments it alike."""

    _epoch = 0

    def begin_epoch(self, epoch: int) -> None:
        """See `SourceView.begin_epoch`."""
        self._epoch = epoch

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; with `epoch`, int64[N]."""
        batch = self.source.batch(indices)
        return {**batch, EPOCH: np.full(len(batch["id"]), self._epoch, np.int64)}


class Sealer:
    """Makes what the replay carries of batches. Of one thread."""

    def __init__(self, kind: str) -> None:
        """Counts nothing yet.

        Args:
            kind: of `kinds.IMAGES`.
        """
        if kind not in IMAGES:
            raise ValueError(f"kind={kind!r}: expected one of {', '.join(IMAGES)}")
        self._kind = kind
        self._as_pixels = 0

    @property
    def counts(self) -> dict[str, float]:
        """Metrics: how many images were carried as pixels although files were asked for."""
        return {"data/sent_as_pixels": float(self._as_pixels)} if self._kind == ENCODED else {}

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """Returns the fields of the records.

        A file goes where it is smaller than the pixels. So a record of files is never larger than one
        of pixels, but for some bytes, and what is behind a file are zeros, which cost nothing once
        they are compressed.

        Args:
            batch: of a source, with `image` uint8[B, H, W, C]; also `epoch` unless pixels are
                carried, and `file` where files are.
        """
        if self._kind == PIXELS:
            return as_scored(batch)
        images = batch["image"]
        sealed = {name: array for name, array in batch.items() if name not in ("image", FILE)}
        sealed[CHECK] = checks(images)
        if self._kind == IDS:
            return sealed
        sealed[CONTENT], sealed[CONTENT_BYTES] = _contents(images, batch[FILE])
        self._as_pixels += int(np.count_nonzero(sealed[CONTENT_BYTES] == 0))
        return sealed


def unused_bytes(batch: Mapping[str, np.ndarray]) -> float:
    """How many zeros are behind a file, on average over what was sealed."""
    if CONTENT not in batch:
        return 0.0
    sizes = batch[CONTENT_BYTES]
    return float(np.where(sizes > 0, batch[CONTENT].shape[1] - sizes, 0).mean())


def as_scored(batch: Mapping[str, np.ndarray]) -> Batch:
    """A source's batch without what is there for the replay alone."""
    return {name: array for name, array in batch.items() if name not in (FILE, EPOCH)}


def checks(images: np.ndarray) -> np.ndarray:
    """The CRC-32 uint32[B] of the pixels of each of uint8[B, ...]."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    found = pool.in_order(lambda row: zlib.crc32(rows[row]), range(len(rows)))
    return np.fromiter(found, np.uint32, len(rows))


def _contents(images: np.ndarray, files: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Files, or pixels where there is no smaller file: uint8[B, H·W·C]; and the files' sizes, or 0."""
    pixels = images.reshape(len(images), -1)
    contents = np.zeros_like(pixels)
    sizes = np.array([len(file) for file in files], np.int32)
    sizes[sizes >= pixels.shape[1]] = 0
    for row, size in enumerate(sizes.tolist()):
        if size:
            contents[row, :size] = np.frombuffer(files[row], np.uint8)
        else:
            contents[row] = pixels[row]
    return contents, sizes
