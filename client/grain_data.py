"""A selection as a data set of Grain's. It alone imports grain."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grain

from classact.client.selection import Reader

if TYPE_CHECKING:
    from classact.client.selection import Batch, Selection


class SubBatches(grain.IterDataset):
    """A rank's parts of the sub-batches; see `Selection.grain_dataset`."""

    def __init__(self, selection: Selection, reader: Reader, options: Mapping[str, Any]) -> None:
        """Asks for nothing yet."""
        super().__init__()
        self._selection, self._reader, self._options = selection, reader, dict(options)

    def __iter__(self) -> _Places:
        return _Places(self._selection, self._reader, self._options)


class _Places(grain.DatasetIterator):
    """Its state is the number of the next sub-batch."""

    def __init__(self, selection: Selection, reader: Reader, options: Mapping[str, Any]) -> None:
        super().__init__()
        self._selection, self._reader, self._options = selection, reader, options
        self._next = selection.place(reader.rank, reader.world_size)
        self._begin()

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._next = int(batch["number"]) + 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """See `grain.DatasetIterator`."""
        return {"next": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `grain.DatasetIterator`."""
        self._next = int(state["next"])
        self._begin()

    def _begin(self) -> None:
        # A session of its own: it goes on from its number, wherever it was before.
        session = uuid.uuid4().hex
        self._batches = self._selection.read_as(self._reader, self._next, self._options, session)
