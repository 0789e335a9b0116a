"""A trainer's view of a selection: numbered sub-batches, its part of each, and its place among them."""

from __future__ import annotations

import collections
import dataclasses
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from classact.client import connection as connection_lib
from classact.client.connection import SelectionError

if TYPE_CHECKING:
    from types import TracebackType

Batch = dict[str, Any]
IMAGES = (None, "pixels", "encoded", "ids")
_STATE_VERSION = 1


def connect(
    where: Union[str, os.PathLike[str]], *, keys: str | None = None, patience: float = 600.0
) -> Selection:
    """Gives the sub-batches of a run of `classact serve`; asks for nothing yet.

    Args:
        where: its run directory, in which it tells where it is; or `tcp://host:port`.
        keys: with `tcp://`, the path of a copy of the run directory's `serve.json`, whose keys are shown.
        patience: seconds for which `Selection` waits at most whenever it waits for the selector. More than it
            takes to start, or to come back after a crash.
    """
    return Selection(connection_lib.Finder(os.fspath(where), keys, patience), patience)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Who reads: a rank of several, and a worker process of several of it."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for part, whole in (("rank", "world_size"), ("worker", "workers")):
            value, limit = getattr(self, part), getattr(self, whole)
            if limit < 1 or not 0 <= value < limit:
                raise ValueError(f"{part}={value!r}, {whole}={limit!r}: must be from 0 to {whole} - 1")

    def as_json(self) -> dict[str, int]:
        """The four fields of a request."""
        return {"rank": self.rank, "world": self.world_size, "worker": self.worker, "workers": self.workers}


class Selection:
    """Sub-batches of a selector, in their order; of one thread in each process.

    It may be pickled, or taken along by a fork: each process has a connection of its own.
    """

    def __init__(self, finder: connection_lib.Finder, patience: float) -> None:
        """Asks for nothing yet; see `connect`."""
        self._finder, self._patience = finder, patience
        self._connection: connection_lib.Connection | None = None
        self._process = 0
        self._reader = Reader()
        # Where `batches` goes on; None: after what the selector has given this rank.
        self._next: int | None = None
        self._last_state: int | None = None

    def batches(
        self,
        rank: int = 0,
        world_size: int = 1,
        *,
        images: str | None = None,
        weights: bool = False,
        ahead: int = 2,
    ) -> Iterator[Batch]:
        """Yields this rank's part of each sub-batch, from the place of `load_state_dict` on, to the last.

        A batch is a dict of NumPy arrays: `number`, int, of the sub-batch; `id`, int64[n]; `image`,
        uint8[n, H, W, C], or `encoded`, a list of n image files as bytes, or neither; `label`, int32[n], or
        `text`, int32[n, L], with `caption`, a list of n texts; `score`, float32[n], if the run scores; with
        `weights` also `weight`, float32[n]: 1/(B · p) normalised to a mean of 1 over the whole sub-batch, so
        that a weighted loss estimates that of the data as they come. With several data sets it has a
        dict of each by its name.

        Parts of different ranks are disjoint, and all parts together are the sub-batch; rank r of W has
        the rows from r · b // W on. Blocks while there is nothing, `patience` seconds at most.

        Args:
            rank: of this process among those that train together.
            world_size: how many there are; all of them must read.
            images: "pixels" or "encoded": what the run hands on, see `replay.images`; "ids": no images, the
                trainer reads them by their ids; None: what the run hands on.
            weights: whether to have weights.
            ahead: how many sub-batches are asked for before they are used.

        Raises:
            ValueError: for an argument that is none.
            SelectionError: if the selector does not answer, or hands on no such images.
        """
        reader, session = Reader(rank, world_size), uuid.uuid4().hex
        yield from self._batches(reader, self._next, session, images, weights, ahead)

    def _batches(
        self, reader: Reader, first: int | None, session: str, images: str | None, weights: bool, ahead: int
    ) -> Iterator[Batch]:
        if images not in IMAGES:
            raise ValueError(f"images={images!r}: must be one of {', '.join(map(str, IMAGES))}")
        if ahead < 1:
            raise ValueError(f"ahead={ahead!r}: must be at least 1")
        self._reader = reader
        connection = self._connected()
        number, about = self._hello(reader, first, session)
        handed = about["images"]
        if handed is not None and images not in (None, "ids", handed):
            raise SelectionError(
                f"images={images!r}: this run hands on {handed}; start one with "
                f"--config.replay.images={images}"
            )
        request = {"kind": "get", "images": images or "", "weights": weights, **reader.as_json()}
        asked: collections.deque[int] = collections.deque()
        while True:
            while len(asked) < ahead:
                asked.append(connection.ask({**request, "number": number + len(asked) * reader.workers}))
            header, arrays = connection.receive(asked.popleft())
            if header["kind"] == "end" or (header["kind"] == "ended" and number >= header["number"]):
                return
            if header["kind"] == "ended":
                raise SelectionError(self._too_late(int(header["number"]), number))
            if header["kind"] == "gone":
                number = self._goes_on(number, int(header["oldest"]), reader.workers)
                asked.clear()
                continue
            number += reader.workers
            self._next = number
            yield _as_batch(header, arrays, about["data_sets"])

    def state_dict(self, batch: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The place after a batch, for the trainer's checkpoint: plain numbers.

        That the trainer saves a second state says that the first is on disk: the selector is told that
        nothing before that one is needed any more.

        Args:
            batch: the last that was trained on; needed where other processes read, as a DataLoader's
                workers do. None: the last that `batches` gave.
        """
        number = self._next if batch is None else int(batch["number"]) + 1
        if self._last_state is not None:
            self._confirm(self._last_state)
        self._last_state = number
        return {"version": _STATE_VERSION, "next": number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a place; `batches` that began before does not.

        Raises:
            ValueError: if it is no state of `state_dict`.
        """
        number = state.get("next", -1)
        if state.get("version") != _STATE_VERSION or not (number is None or number >= 0):
            raise ValueError(f"{state!r} is no state of a selection")
        self._next = self._last_state = number

    def report(self, ids: Any, losses: Any) -> None:
        """Tells the losses of examples, of whatever model is trained, for the run's metrics; optional.

        Blocks until the selector has them, `patience` seconds at most.

        Args:
            ids: int[n], as the batches have them.
            losses: float[n], one for each.

        Raises:
            ValueError: if they are not as many numbers.
            SelectionError: if the selector does not answer.
        """
        numbers, values = np.asarray(ids, np.int64), np.asarray(losses, np.float32)
        if numbers.ndim != 1 or numbers.shape != values.shape:
            raise ValueError(
                f"ids{list(numbers.shape)} and losses{list(values.shape)}: must be as many numbers"
            )
        header = {"kind": "report", **self._reader.as_json()}
        connection = self._connected()
        connection.receive(connection.ask(header, {"ids": numbers, "losses": values}))

    def torch_dataset(self, rank: int | None = None, world_size: int | None = None, **options: Any) -> Any:
        """The same as a `torch.utils.data.IterableDataset`, for `DataLoader(dataset, batch_size=None)`.

        With `num_workers` each worker has every so-manieth sub-batch, and the order is kept. Arrays are
        tensors. For a checkpoint take `state_dict(batch)` of the last batch that was trained on.

        Args:
            rank: as in `batches`; None: that of torch.distributed, if it is initialised, or 0.
            world_size: likewise, or 1.
            **options: `images`, `weights` and `ahead`, as in `batches`.

        Raises:
            ImportError: without torch.
        """
        from classact.client import torch_data

        return torch_data.make_dataset(self, rank, world_size, options)

    def grain_dataset(self, rank: int = 0, world_size: int = 1, **options: Any) -> Any:
        """The same as a `grain.IterDataset`, whose iterators' state is the place; of one process.

        Args:
            rank: as in `batches`.
            world_size: likewise.
            **options: `images`, `weights` and `ahead`, as in `batches`.

        Raises:
            ImportError: without grain.
        """
        from classact.client import grain_data

        return grain_data.SubBatches(self, Reader(rank, world_size), options)

    def read_as(
        self, reader: Reader, first: int, options: Mapping[str, Any], session: str
    ) -> Iterator[Batch]:
        """Yields what one of several readers of a rank has, for adaptors.

        Args:
            reader: which.
            first: the number from which it reads the first time.
            options: of `batches`.
            session: names what this reader reads in several times: each goes on after the one before.
        """
        chosen = {"images": None, "weights": False, "ahead": 2, **options}
        unknown = sorted(set(chosen) - {"images", "weights", "ahead"})
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}: expected images, weights or ahead")
        return self._batches(reader, first, session, chosen["images"], chosen["weights"], chosen["ahead"])

    def place(self, rank: int, world_size: int) -> int:
        """The number of the next sub-batch of a rank; blocks as `batches`, for adaptors."""
        self._reader = Reader(rank, world_size)
        return self._hello(self._reader, self._next, "")[0]

    def close(self) -> None:
        """Ends the connection; safe to call twice. A later call makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            connection.close()

    def __enter__(self) -> Selection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}

    def _connected(self) -> connection_lib.Connection:
        # What another process has opened is its own: ZeroMQ's threads do not come along with a fork.
        if self._connection is None or self._process != os.getpid():
            self._connection = connection_lib.Connection(self._finder, self._patience)
            self._process = os.getpid()
        return self._connection

    def _hello(self, reader: Reader, first: int | None, session: str) -> tuple[int, dict[str, Any]]:
        connection = self._connected()
        header = {"kind": "hello", "next": first, "session": session, **reader.as_json()}
        about, _ = connection.receive(connection.ask(header))
        if about["kind"] == "ended":
            ended = int(about["number"])
            if first is None or first < ended:
                raise SelectionError(self._too_late(ended, first))
            return ended, {"images": None, "data_sets": []}
        return int(about["next"]), about

    def _too_late(self, ended: int, number: int | None) -> str:
        wanted = "" if number is None else f", and sub-batch {number} is asked for"
        return f"the run of {self._finder.name} is completed: it handed on {ended} sub-batches{wanted}"

    def _confirm(self, number: int) -> None:
        self._connected().tell({"kind": "confirm", "number": number, **self._reader.as_json()})

    def _goes_on(self, number: int, oldest: int, step: int) -> int:
        """The first of this reader's numbers that is still there."""
        found = number + -(-(oldest - number) // step) * step
        warnings.warn(
            f"sub-batches {number} to {oldest - 1} of {self._finder.name} are no longer kept; it goes on "
            f"with {found}. A run keeps serve.kept of them, and none from before a state that is sure",
            RuntimeWarning,
            stacklevel=4,
        )
        return found


def _as_batch(header: Mapping[str, Any], arrays: Mapping[str, Any], data_sets: list[str]) -> Batch:
    batch: Batch = {"number": int(header["number"])}
    parts = {name: {} for name in data_sets} if len(data_sets) > 1 else {data_sets[0]: batch}
    for name, values in arrays.items():
        data_set, _, field = name.partition("/")
        parts[data_set][field] = values
    return batch if len(data_sets) == 1 else {**batch, **parts}
