"""Writes scored examples into the tables of a data set."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import reverb

from classact.replay import records

# How long one flush may block before the stop signal is looked at again.
_FLUSH_SECONDS = 0.5
# Items that may be unconfirmed while more are appended. Reverb logs a warning for
# every ten items above about fifty.
_MAX_PENDING = 24


class ReplayWriter:
    """Inserts each example of a batch as one item per table. Not thread-safe."""

    def __init__(
        self,
        address: str,
        codec: records.RecordCodec,
        tables: Sequence[str],
        stop: threading.Event,
    ) -> None:
        """Opens a stream to the server.

        Args:
            address: `host:port` of the replay server.
            codec: packs batches into records.
            tables: names of the tables that every example goes to; the data is
                sent and stored once.
            stop: ends a blocked `write`.
        """
        self._codec = codec
        self._tables = tuple(tables)
        self._stop = stop
        self._writer = reverb.Client(address).trajectory_writer(num_keep_alive_refs=1)
        # `TrajectoryWriter.append` keeps a Python history of every column, which
        # costs as much as the insertion itself (BUILD_NOTES.md); an item of one
        # step needs none, so the C++ writer beneath is called.
        self._stream = self._writer._writer

    def write(self, batch: Mapping[str, np.ndarray], priorities: np.ndarray, keep: np.ndarray) -> int:
        """Inserts a batch; blocks while the rate limiter does, until `stop`.

        Args:
            batch: the fields of the codec, `[B, ...]` each.
            priorities: float64[B], finite and positive where `keep`.
            keep: bool[B], the examples to insert.

        Returns:
            The number of examples inserted.

        Raises:
            ValueError: if a kept priority is not finite or negative; nothing is
                inserted then, since Reverb's worker would die of it.
        """
        chosen = np.flatnonzero(keep)
        if not np.all(np.isfinite(priorities[chosen])) or np.any(priorities[chosen] < 0):
            raise ValueError("a priority is negative or not finite: it would stop the replay table for ever")
        rows = self._codec.pack(batch)
        chunk = _MAX_PENDING // len(self._tables)
        for start in range(0, len(chosen), chunk):
            for index in chosen[start : start + chunk]:
                reference = self._stream.Append([rows[index]])
                for table in self._tables:
                    priority = float(priorities[index]) if table == self._tables[0] else 1.0
                    self._stream.CreateItem(table, priority, [reference], [True])
            self.flush(_MAX_PENDING)
        return len(chosen)

    def flush(self, max_pending: int = 0) -> None:
        """Blocks until at most `max_pending` items are unconfirmed, or until `stop`."""
        while not self._stop.is_set():
            try:
                self._writer.flush(max_pending, timeout_ms=int(1000 * _FLUSH_SECONDS))
                return
            except reverb.DeadlineExceededError:
                # The rate limiter holds the items back; look at the stop signal.
                continue

    def close(self) -> None:
        """Closes the stream; items still held back by the rate limiter are given up."""
        self._writer.close()
