"""The order in which a run has learned: read back from its record, and replayed on its data.

A record is `trained_examples.jsonl`: a JSON line an update, `{"step": int, "<data set>": [ids]}` and
more. A run that was interrupted went back to its checkpoint and repeats steps from there: what it
wrote last of a step is what it has learned from.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np

from classact.data.source import Batch, DataError, Source
from classact.data.views import begin_epoch

FILE_NAME = "trained_examples.jsonl"
# Of so many examples at once the ids are compared with the indices.
_LOOKED_AT = 1 << 20


class RecordError(ValueError):
    """A record that is missing, damaged or not of one run; the message names the file and the line."""


class RecordedOrder:
    """The ids of each update of a run. Keeps where lines are, 8 bytes an update, and reads them when asked.

    Args:
        path: the record, or the directory of a run that has one.
        data_set: whose ids, as the record calls it; empty: of the only one that there is.

    Raises:
        RecordError: if it cannot be read, lacks an update between the first and the last, has several
            data sets and none is named, or not equally many examples in each update.
    """

    def __init__(self, path: pathlib.Path, data_set: str = "") -> None:
        self.path = path / FILE_NAME if path.is_dir() else path
        self.data_set = data_set
        self.batch_size = 0
        offsets: list[int] = []
        try:
            with open(self.path, "rb") as file:
                offset = 0
                for number, line in enumerate(file, start=1):
                    self._take(line, number, offset, offsets)
                    offset += len(line)
        except OSError as error:
            said = "the run must have record_examples=True" if path.is_dir() else error.strerror
            raise RecordError(f"{self.path} cannot be read: {said}") from None
        if not offsets:
            raise RecordError(f"{self.path}: it has no update")
        self._offsets = np.array(offsets, np.int64)

    @property
    def updates(self) -> int:
        """How many updates it has."""
        return len(self._offsets)

    def ids(self, update: int) -> np.ndarray:
        """The ids int64[b] of an update, 0 to updates − 1.

        Raises:
            RecordError: if the file has changed since it was opened.
        """
        with open(self.path, "rb") as file:
            file.seek(self._offsets[update])
            line = file.readline()
        try:
            record = json.loads(line)
            if record["step"] == update + 1:
                return np.array(record[self.data_set], np.int64)
        except (ValueError, LookupError, TypeError):
            pass
        raise RecordError(f"{self.path} has changed while it was read")

    def __iter__(self) -> Iterator[np.ndarray]:
        """The ids of each update, from the first to the last."""
        return (self.ids(update) for update in range(self.updates))

    def _take(self, line: bytes, number: int, offset: int, offsets: list[int]) -> None:
        where = f"line {number}"
        try:
            found = json.loads(line)
        # Torn, as the run was killed: what went on from there has written the update again, or an
        # update is missing.
        except (ValueError, RecursionError):
            return
        record = self._checked(found, where)
        step, ids = record["step"], record[self._name(record)]
        if step > len(offsets) + 1:
            raise RecordError(f"{self.path}: update {len(offsets) + 1} is missing, {where} is of {step}")
        self.batch_size = self.batch_size or len(ids)
        if not ids or len(ids) != self.batch_size:
            raise RecordError(
                f"{self.path}: {where} has {len(ids)} examples of {self.data_set}, expected "
                f"{self.batch_size or 1}"
            )
        del offsets[step - 1 :]
        offsets.append(offset)

    def _name(self, record: dict[str, Any]) -> str:
        names = [name for name in record if name != "step" and "/" not in name]
        if not self.data_set and len(names) == 1:
            self.data_set = names[0]
        if self.data_set not in names:
            wanted = f"none is named {self.data_set!r}" if self.data_set else "none is named"
            raise RecordError(f"{self.path}: it has the data sets {', '.join(names)}, and {wanted}")
        return self.data_set

    def _checked(self, record: Any, where: str) -> dict[str, Any]:
        sound = isinstance(record, dict) and type(record.get("step")) is int and record["step"] >= 1
        if not sound or not all(isinstance(value, list) for name, value in record.items() if name != "step"):
            raise RecordError(f"{self.path}: {where} is not what a run writes: step and ids by data set")
        return dict(record)


class Places:
    """Where examples are in a source, by their ids; 16 bytes an example at most, none where ids are indices.

    Args:
        source: it.
    """

    def __init__(self, source: Source) -> None:
        self._count = source.num_examples
        self._ids: Optional[np.ndarray] = None
        self._order: Optional[np.ndarray] = None
        if _are_indices(source):
            return
        ids = source.ids(np.arange(source.num_examples))
        if np.any(ids[1:] <= ids[:-1]):
            self._order = np.argsort(ids, kind="stable")
            ids = ids[self._order]
        self._ids = ids

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """The indices int64[B] of ids int64[B]; −1 of those that the source does not have."""
        if self._ids is None:
            return np.where((ids >= 0) & (ids < self._count), ids, -1)
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        there = self._ids[places] == ids
        return np.where(there, places if self._order is None else self._order[places], -1)


def _are_indices(source: Source) -> bool:
    """Whether each example's id is its index."""
    for start in range(0, source.num_examples, _LOOKED_AT):
        indices = np.arange(start, min(start + _LOOKED_AT, source.num_examples))
        if not np.array_equal(source.ids(indices), indices):
            return False
    return True


class RecordedStream(Iterator[Batch]):
    """The batches of a recorded order, from an update on; after the last update its batch again, for ever.

    Who reads ahead gets the latter, and trains on none of it.

    Args:
        source: the data; each id of the order must be in it.
        order: of the updates.
        first: the update to begin with, from 0.
        rows: which examples of each update, for one of several readers; None: all.
    """

    def __init__(
        self, source: Source, order: RecordedOrder, first: int = 0, rows: Optional[slice] = None
    ) -> None:
        self._source = source
        self._order = order
        self._next = first
        self._rows = rows or slice(None)
        self._places = Places(source)

    def __next__(self) -> Batch:
        """The examples of the next update, in their order.

        Raises:
            DataError: if one is not in the source, or is damaged: without it the order is another;
                or if the record has changed.
        """
        try:
            ids = self._order.ids(min(self._next, self._order.updates - 1))[self._rows]
        except RecordError as error:
            raise DataError(str(error)) from None
        places = self._places(ids)
        if (places < 0).any():
            raise DataError(f"{self._source.name}: it has no example with id {ids[places < 0][0]}")
        # An order has no epochs: each update shows its examples in its own way.
        begin_epoch(self._source, self._next)
        batch = self._source.batch(places)
        if not np.array_equal(batch["id"], ids):
            lost = np.setdiff1d(ids, batch["id"])
            raise DataError(
                f"{self._source.name}: the example with id {lost[0] if len(lost) else ids[0]}, of update "
                f"{self._next + 1} of {self._order.path}, cannot be read"
            )
        self._next += 1
        return batch
