"""An endless, resumable stream of IID batches over a source."""

from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np

from classact.data.source import Batch, DataError, Source

MAX_SKIPPED_SHARE = 0.01


class IIDStream(Iterator[Batch]):
    """Draws batches without replacement within an epoch, reshuffled each epoch, for ever.

    Every reader of a seed knows each epoch's permutation, and takes every
    `num_readers`-th example of it: readers never meet in an epoch, and together
    they read all of it. A batch may straddle two epochs. Damaged examples that
    the source leaves out are made up for by the following ones.

    `next` reads in the calling thread and blocks as long as the source does. The
    stream holds 8 bytes per example of its share (while it shuffles, 8 per
    example of the source). It isn't safe to share between threads.

    Args:
        source: what to read.
        batch_size: rows per batch.
        seed: of the permutations.
        reader: which reader this is, 0 to num_readers − 1.
        num_readers: how many split the stream.
        cursor: where to go on, from `IIDStream.cursor` of a stream of the same
            source, seed and readers; the batch size may differ.

    Raises:
        ValueError: for a bad argument, or a cursor of another stream.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        reader: int = 0,
        num_readers: int = 1,
        cursor: Optional[Mapping[str, Any]] = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected 0 or more")
        if not 1 <= num_readers <= source.num_examples:
            raise ValueError(
                f"num_readers={num_readers}: "
                f"expected 1 to {source.num_examples}, the examples of {source.name}"
            )
        if not 0 <= reader < num_readers:
            raise ValueError(
                f"reader={reader}: expected 0 to {num_readers - 1}, as num_readers={num_readers}"
            )
        self._source = source
        self._batch_size = batch_size
        self._identity = {
            "seed": seed,
            "reader": reader,
            "num_readers": num_readers,
            "num_examples": source.num_examples,
        }
        self._epoch, self._position, self._skipped = 0, 0, 0
        self._order = self._permutation(0)
        if cursor is not None:
            self._restore(cursor)

    def __next__(self) -> Batch:
        """Returns the next batch: every field of the source with exactly `batch_size` rows.

        Raises:
            DataError: if the source raises it, or if it left out more than 1 % of
                an epoch's share.
        """
        parts: list[Batch] = []
        missing = self._batch_size
        while missing:
            part = self._read(missing)
            rows = len(part["id"])
            if rows:
                parts.append(part)
                missing -= rows
        if len(parts) == 1:
            return parts[0]
        return {field: np.concatenate([part[field] for part in parts]) for field in parts[0]}

    @property
    def epoch(self) -> float:
        """How many times the stream has been through its share; fractional."""
        return self._epoch + self._position / len(self._order)

    @property
    def cursor(self) -> dict[str, int]:
        """Where the stream is, as JSON-able numbers; valid between two calls of `next`."""
        return {
            **self._identity,
            "epoch": self._epoch,
            "position": self._position,
            "skipped": self._skipped,
        }

    def _read(self, rows: int) -> Batch:
        """Reads up to `rows` examples of the current epoch."""
        if self._position == len(self._order):
            self._epoch, self._position, self._skipped = self._epoch + 1, 0, 0
            self._order = self._permutation(self._epoch)
        indices = self._order[self._position : self._position + rows]
        part = self._source.batch(indices)
        self._position += len(indices)
        self._skipped += len(indices) - len(part["id"])
        # One is always let pass: with several readers, a share can be so small
        # that a single damaged example is more than 1 % of it.
        if self._skipped > max(1.0, MAX_SKIPPED_SHARE * len(self._order)):
            raise DataError(
                f"{self._source.name}: {self._skipped} of {self._position} examples of epoch "
                f"{self._epoch} are damaged; more than {MAX_SKIPPED_SHARE:.0%} of an epoch stops the run"
            )
        return part

    def _permutation(self, epoch: int) -> np.ndarray:
        """This reader's share of an epoch, in order: int64[about num_examples / num_readers]."""
        rng = np.random.default_rng([self._identity["seed"], epoch])
        order = rng.permutation(self._identity["num_examples"])
        return order[self._identity["reader"] :: self._identity["num_readers"]].copy()

    def _restore(self, cursor: Mapping[str, Any]) -> None:
        for field, value in self._identity.items():
            if cursor.get(field) != value:
                raise ValueError(
                    f"cursor has {field}={cursor.get(field)}, but the stream over {self._source.name} has "
                    f"{value}: a stream can only be continued with the same source, seed and readers"
                )
        for field, limit in (("epoch", None), ("position", len(self._order)), ("skipped", len(self._order))):
            place = cursor.get(field)
            if not isinstance(place, int) or place < 0 or (limit is not None and place > limit):
                raise ValueError(f"cursor has {field}={place}: not what IIDStream.cursor gives")
        self._epoch, self._position, self._skipped = cursor["epoch"], cursor["position"], cursor["skipped"]
        self._order = self._permutation(self._epoch)
