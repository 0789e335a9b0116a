"""A selection as a data set of PyTorch's. It alone imports torch."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed
import torch.utils.data

if TYPE_CHECKING:
    from classact.client.selection import Selection


def make_dataset(
    selection: Selection, rank: int | None, world_size: int | None, options: Mapping[str, Any]
) -> SubBatches:
    """Makes the data set; blocks until the selector has said where it goes on."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if distributed else 1
    return SubBatches(selection, rank, world_size, selection.place(rank, world_size), options)


class SubBatches(torch.utils.data.IterableDataset[Any]):
    """This rank's parts of the sub-batches, as tensors.

    Each pass of a DataLoader goes on where the last one's workers had read to: a batch that a worker had read
    and the trainer never got is left out then, unless the place is loaded from a state.
    """

    def __init__(
        self, selection: Selection, rank: int, world_size: int, first: int, options: Mapping[str, Any]
    ) -> None:
        """Reads nothing yet; see `make_dataset`."""
        self._selection = selection
        self._rank, self._world_size = rank, world_size
        self._first = first
        self._options = dict(options)
        self._session = uuid.uuid4().hex

    def __iter__(self) -> Iterator[Any]:
        from classact.client.selection import Reader

        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        reader = Reader(self._rank, self._world_size, worker, workers)
        for batch in self._selection.read_as(reader, self._first + worker, self._options, self._session):
            yield _as_tensors(batch)


def _as_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_tensors(item) for name, item in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
