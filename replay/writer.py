"""Writes scored examples into the tables of a data set."""

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from classact.replay import records
from classact.replay.compression import Compressor
from classact.replay.encoding import InsertEncoder, Keys
from classact.replay.insert_stream import InsertStream
from classact.replay.server_calls import ReplayError, ServerCalls

# How long one wait for confirmations may block before the stop signal is looked at again.
_FLUSH_SECONDS = 0.5
# A request has as many examples as a quarter of the batch, within these bounds: each costs about
# as much as 20 more examples in one. Within half a batch they stay young while the rate limiter
# holds them back.
_SHARE = 4
_LEAST_EXAMPLES = 24
# No more items than a request has examples are unconfirmed when `write` returns.
MAX_PENDING = 64
# Between two tries to reach a server that is gone.
_RETRY_SECONDS = 1.0

Priorities = Callable[[np.ndarray], np.ndarray]


class ReplayUnreachableError(RuntimeError):
    """The replay server was gone for too long."""


@dataclasses.dataclass
class _Sent:
    """Examples of one request, until all their items are confirmed.

    Attributes:
        rows: uint8[n, record bytes].
        indices: int64[n], of the batch's rows.
        priorities: gives theirs.
        keys: of their chunks and items.
        items: all items' keys.
        wanted: bool[tables, n], the items that were not confirmed when a stream last broke.
    """

    rows: np.ndarray
    indices: np.ndarray
    priorities: Priorities
    keys: Keys
    items: list[int]
    wanted: np.ndarray


class ReplayWriter:
    """Inserts each example of a batch as one item per table. Not thread-safe.

    A server that is gone is waited for. What it had not confirmed is sent again when it is
    back, under the same keys: an item that is in the table already, as the server was gone for
    this writer alone, or has saved it, is replaced and not doubled. So what may be drawn twice
    for this is what had been drawn already, but not confirmed, when the connection broke: of the
    last 2 · `MAX_PENDING` items those that were drawn within the moment that a confirmation takes.
    """

    def __init__(
        self,
        address: str,
        codec: records.RecordCodec,
        tables: Sequence[str],
        stop: threading.Event,
        unreachable_seconds: float = 300.0,
        compression: str = "auto",
    ) -> None:
        """Connects when it first writes.

        Args:
            address: "host:port" or "unix:/path" of the replay server.
            codec: packs batches into records.
            tables: names of the tables that every example goes to; the data is
                sent and stored once.
            stop: ends a blocked `write`.
            unreachable_seconds: how long `write` waits for a server that refuses it.
            compression: of the records, see `compression.Compressor`.
        """
        self._codec = codec
        self._tables = tuple(tables)
        self._stop = stop
        self._unreachable_seconds = unreachable_seconds
        self._address = address
        self._rng = np.random.default_rng()
        episode = int(self._rng.integers(0, 1 << 64, dtype=np.uint64))
        self._encode = InsertEncoder(codec.num_bytes, self._tables, episode)
        self._compress = Compressor(compression, codec.num_bytes)
        self._sent: collections.deque[_Sent] = collections.deque()
        self._stream: InsertStream | None = None
        self._max_pending = 0
        # Since when nothing has been confirmed, and the server refuses.
        self._refused_since: float | None = None

    def write(self, batch: Mapping[str, np.ndarray], priorities: Priorities, keep: np.ndarray) -> int:
        """Inserts a batch; blocks while the rate limiter does, until `stop`.

        Args:
            batch: the fields of the codec, `[B, ...]` each.
            priorities: gives the priorities float64[n], finite, of the rows int64[n];
                asked for a few rows at a time, just before they are inserted, and again
                if they have to be sent again, maybe after the return of this call.
            keep: bool[B], the examples to insert.

        Returns:
            The number of examples inserted.

        Raises:
            ValueError: if a priority is not finite; it is not inserted, since Reverb's
                worker would die of it.
            SchemaError: if the server's tables hold something else.
            ReplayUnreachableError: if the server was gone for too long.
        """
        chosen = np.flatnonzero(keep)
        rows = self._codec.pack(batch)
        if not len(chosen):
            return 0
        self._max_pending = examples = min(max(len(chosen) // _SHARE, _LEAST_EXAMPLES), MAX_PENDING)
        step = max(1, examples // len(self._tables))
        for start in range(0, len(chosen), step):
            if self._stop.is_set():
                break
            indices = chosen[start : start + step]
            # A bad priority must not come among what is sent again.
            found = _checked(priorities(indices))
            keys = Keys.random(self._rng, len(self._tables), len(indices))
            sent = _Sent(
                _taken(rows, indices),
                indices,
                priorities,
                keys,
                keys.items.ravel().tolist(),
                np.ones(keys.items.shape, bool),
            )
            self._sent.append(sent)
            if self._stream is not None:
                self._send(self._stream, sent, found)
            self.flush(examples)
        return len(chosen)

    @property
    def max_pending(self) -> int:
        """Examples that may be unconfirmed after the last `write`, in some table: its last ones."""
        return self._max_pending

    def flush(self, max_pending: int = 0) -> None:
        """Blocks until at most `max_pending` items are unconfirmed, or until `stop`.

        Raises:
            SchemaError: if the server's tables hold something else.
            ReplayUnreachableError: if the server was gone for too long.
        """
        while self._sent and not self._stop.is_set():
            try:
                if self._stream is None:
                    self._open()
                # The rate limiter may hold the items back; then the stop signal is looked at again.
                elif self._stream.wait(max_pending, _FLUSH_SECONDS):
                    self._refused_since = None
                    self._forget_confirmed(self._stream)
                    return
                else:
                    # Held back is not refused: what comes after it has the whole time again.
                    self._refused_since = None
            except ReplayError as error:
                self._lose(error)

    def close(self) -> None:
        """Closes the stream; items still held back by the rate limiter are given up."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self) -> None:
        """Opens a stream, and sends all on it that is not confirmed."""
        calls = ServerCalls(self._address)
        try:
            calls.check_schema(self._tables, self._codec.num_bytes)
        finally:
            calls.close()
        # The clock has gone on since they were first sent.
        found = [_checked(sent.priorities(sent.indices)) for sent in self._sent]
        self._stream = InsertStream(self._address)
        for sent, priorities in zip(self._sent, found, strict=True):
            self._send(self._stream, sent, priorities)

    def _send(self, stream: InsertStream, sent: _Sent, priorities: np.ndarray) -> None:
        of_tables = np.zeros(sent.wanted.shape)
        of_tables[0] = priorities
        if sent.wanted.all():
            rows, keys, wanted, items = sent.rows, sent.keys, None, sent.items
        else:
            some = sent.wanted.any(axis=0)
            rows, keys = sent.rows[some], Keys(sent.keys.chunks[some], sent.keys.items[:, some])
            of_tables, wanted = of_tables[:, some], sent.wanted[:, some]
            items = keys.items[wanted].tolist()
        prefix, contents = self._compress(rows)
        stream.send(self._encode(contents, of_tables, keys, prefix, wanted), items)

    def _forget_confirmed(self, stream: InsertStream) -> None:
        while self._sent and stream.has_confirmed(self._sent[0].items):
            self._sent.popleft()

    def _lose(self, error: ReplayError) -> None:
        """Gives up a stream that has broken, and waits before the next try."""
        now = time.monotonic()
        if self._stream is not None:
            if self._keep_unconfirmed(self._stream):
                self._refused_since = None
            self.close()
        self._refused_since = self._refused_since or now
        if now - self._refused_since > self._unreachable_seconds:
            raise ReplayUnreachableError(
                f"the replay at {self._address} refused inserts for {self._unreachable_seconds} s: {error}"
            ) from error
        logging.warning("inserting again, the replay at %s refused: %s", self._address, error)
        self._stop.wait(_RETRY_SECONDS)

    def _keep_unconfirmed(self, stream: InsertStream) -> bool:
        """Forgets what a stream has confirmed; whether that is anything."""
        left = stream.unconfirmed
        before = sum(np.count_nonzero(sent.wanted) for sent in self._sent)
        for sent in self._sent:
            sent.wanted &= np.array([key in left for key in sent.items]).reshape(sent.wanted.shape)
        after = sum(np.count_nonzero(sent.wanted) for sent in self._sent)
        self._sent = collections.deque(sent for sent in self._sent if sent.wanted.any())
        return bool(after < before)


def _checked(priorities: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(priorities)):
        raise ValueError("a priority is not finite: it would stop the replay table for ever")
    return priorities


def _taken(rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The rows, contiguous; without a copy if they are neighbours."""
    first, last = indices[0], indices[-1]
    return rows[first : last + 1] if last - first + 1 == len(indices) else rows[indices]
