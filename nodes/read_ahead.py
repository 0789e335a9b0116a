"""Reads and decodes the next batches of a stream while the last one is being scored, or measured."""

import collections
import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from classact.nodes import activity

# Of batches that are read and not taken yet. More of them would even out nothing more, and be read in vain
# when the run stops.
MAX_BYTES = 256 << 20
_MAX_BATCHES = 4
# Between two looks at the stop signal, which tells nobody who waits for something else.
_LOOK_SECONDS = 0.2
# How long the end waits for a batch that is being read: after it, its thread is left alone.
_END_SECONDS = 5.0

Batch = dict[str, np.ndarray]


class Stream(Protocol):
    """What is read: `data.stream.IIDStream`."""

    def __iter__(self) -> Iterator[Batch]:
        """Batches, as a rule without end."""

    @property
    def cursor(self) -> dict[str, Any]:
        """Where it is, between two batches."""


class ReadAhead(contextlib.AbstractContextManager["ReadAhead"], Iterator[Batch]):
    """A stream whose batches are read by a thread of their own, in their order.

    The thread reads on while fewer than four batches are waiting, and another one of the last
    one's size fits into `max_bytes` with them; one it always reads. So what is held besides the
    batch in hand is at most the larger of `max_bytes` and one batch. While the context lasts, nobody
    else may use the stream. `cursor` is where the stream was behind the batch that was given last:
    what was only read ahead counts as not read, and a run that goes on from there reads it again.
    """

    def __init__(self, stream: Stream, stop: threading.Event, max_bytes: int = MAX_BYTES) -> None:
        """Reads nothing yet.

        Args:
            stream: batches without end.
            stop: ends the batches, whatever is still to be read.
            max_bytes: see the class.
        """
        self._stream = stream
        self._stop = stop
        self._max_bytes = max_bytes
        self._cursor = stream.cursor
        self._changed = threading.Condition()
        # Each with where the stream was behind it, and its bytes.
        self._waiting: collections.deque[tuple[Batch, dict[str, Any], int]] = collections.deque()
        self._bytes = 0
        self._error: BaseException | None = None
        self._read_all = False
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="reading ahead", daemon=True)

    def __enter__(self) -> "ReadAhead":
        """Begins to read."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Ends reading; waits for a batch that is being read, up to 5 seconds."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(_END_SECONDS)

    def __next__(self) -> Batch:
        """Returns the next batch; blocks until it is read, or the stop signal, which ends them.

        Raises:
            Exception: what reading it has raised.
        """
        with self._changed, activity.waiting("examples that are being read"):
            while not self._waiting and not self._read_all and not self._stop.is_set():
                self._changed.wait(_LOOK_SECONDS)
            if self._error is not None and not self._waiting:
                raise self._error
            if not self._waiting or self._stop.is_set():
                raise StopIteration
            batch, self._cursor, size = self._waiting.popleft()
            self._bytes -= size
            self._changed.notify_all()
        return batch

    @property
    def cursor(self) -> dict[str, Any]:
        """Where the stream was behind the last batch that was given."""
        return self._cursor

    def _read(self) -> None:
        try:
            with activity.part("reading ahead"):
                for batch in self._stream:
                    activity.progressed()
                    if not self._put(batch):
                        break
        # Whatever it is, who takes the batches raises it.
        except BaseException as error:
            self._error = error
        with self._changed:
            self._read_all = True
            self._changed.notify_all()

    def _put(self, batch: Batch) -> bool:
        """Hands a batch over, and waits until there is room for another one; whether one is wanted."""
        size = sum(map(_bytes_of, batch.values()))
        with self._changed:
            self._waiting.append((batch, self._stream.cursor, size))
            self._bytes += size
            self._changed.notify_all()
            with activity.waiting("somebody to take what is read"):
                while self._is_full(size) and not self._is_over():
                    self._changed.wait(_LOOK_SECONDS)
            return not self._is_over()

    def _is_full(self, size: int) -> bool:
        """Whether there is no room for another batch of a size."""
        waiting = len(self._waiting)
        return waiting >= _MAX_BATCHES or (waiting > 0 and self._bytes + size > self._max_bytes)

    def _is_over(self) -> bool:
        return self._ended or self._stop.is_set()


def _bytes_of(array: np.ndarray) -> int:
    """What an array holds; one of objects, of files, with these."""
    return array.nbytes + (sum(map(len, array)) if array.dtype == object else 0)
