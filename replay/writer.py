"""Writes scored examples into the tables of a data set."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from classact.replay import records, reverb_wire

# How long one flush may block before the stop signal is looked at again.
_FLUSH_SECONDS = 0.5
# Items that may be unconfirmed while more are appended. Reverb logs a warning for
# every ten items above about fifty.
MAX_PENDING = 24
# Between two tries to reach a server that is gone.
_RETRY_SECONDS = 1.0


class ReplayUnreachableError(RuntimeError):
    """The replay server was gone for too long."""


class ReplayWriter:
    """Inserts each example of a batch as one item per table. Not thread-safe.

    A server that is gone is waited for. What it had not confirmed is inserted again
    when it is back, so some examples, `MAX_PENDING` items at most, may then be there twice.
    """

    def __init__(
        self,
        address: str,
        codec: records.RecordCodec,
        tables: Sequence[str],
        stop: threading.Event,
        unreachable_seconds: float = 300.0,
    ) -> None:
        """Opens a stream to the server.

        Args:
            address: `host:port` of the replay server.
            codec: packs batches into records.
            tables: names of the tables that every example goes to; the data is
                sent and stored once.
            stop: ends a blocked `write`.
            unreachable_seconds: how long `write` waits for a server that refuses it.
        """
        self._codec = codec
        self._tables = tuple(tables)
        self._stop = stop
        self._unreachable_seconds = unreachable_seconds
        self._address = address
        self._open()

    def _open(self) -> None:
        self._writer = reverb_wire.Writer(self._address, self._tables, self._codec.num_bytes, MAX_PENDING)

    def write(
        self,
        batch: Mapping[str, np.ndarray],
        priorities: Callable[[np.ndarray], np.ndarray],
        keep: np.ndarray,
    ) -> int:
        """Inserts a batch; blocks while the rate limiter does, until `stop`.

        Args:
            batch: the fields of the codec, `[B, ...]` each.
            priorities: gives the priorities float64[n], finite, of the rows int64[n];
                asked for a few rows at a time, just before they are inserted.
            keep: bool[B], the examples to insert.

        Returns:
            The number of examples inserted.

        Raises:
            ValueError: if a priority is not finite; it is not inserted, since Reverb's
                worker would die of it.
        """
        chosen = np.flatnonzero(keep)
        rows = self._codec.pack(batch)
        chunk = MAX_PENDING // len(self._tables)
        for start in range(0, len(chosen), chunk):
            self._write_chunk(rows, priorities, chosen[start : start + chunk])
        return len(chosen)

    def _write_chunk(
        self, rows: np.ndarray, priorities: Callable[[np.ndarray], np.ndarray], chosen: np.ndarray
    ) -> None:
        """Inserts a few examples; again and again while the server is gone, until `stop`."""
        deadline: float | None = None
        while not self._stop.is_set():
            found = priorities(chosen)
            if not np.all(np.isfinite(found)):
                raise ValueError("a priority is not finite: it would stop the replay table for ever")
            try:
                wanted = np.zeros((len(self._tables), len(chosen)))
                wanted[0] = found
                self._writer.write(rows[chosen], wanted, timeout=None)
                self.flush(MAX_PENDING)
                return
            # Reverb's errors have no common class but this one.
            except (RuntimeError, reverb_wire.grpc.RpcError) as error:
                now = time.monotonic()
                deadline = deadline or now + self._unreachable_seconds
                if now > deadline:
                    raise ReplayUnreachableError(
                        f"the replay at {self._address} refused inserts for "
                        f"{self._unreachable_seconds} s: {error}"
                    ) from error
                logging.warning("inserting again, the replay at %s refused: %s", self._address, error)
                self._stop.wait(_RETRY_SECONDS)
                self._open()

    @property
    def max_pending(self) -> int:
        """Examples that may be unconfirmed when `write` returns."""
        return MAX_PENDING // len(self._tables)

    def flush(self, max_pending: int = 0) -> None:
        """Blocks until at most `max_pending` items are unconfirmed, or until `stop`."""
        while not self._stop.is_set():
            try:
                self._writer.flush(max_pending, _FLUSH_SECONDS)
                return
            except TimeoutError:
                # The rate limiter holds the items back; look at the stop signal.
                continue

    def close(self) -> None:
        """Closes the stream; items still held back by the rate limiter are given up."""
        self._writer.close()
