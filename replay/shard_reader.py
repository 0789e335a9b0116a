"""Draws from one shard of a table, whatever happens to its server meanwhile."""

import logging
import threading
from collections.abc import Callable

import numpy as np

from classact.replay.records import Records
from classact.replay.sample_stream import SampleStream
from classact.replay.server_calls import ReplayError, ServerCalls

# After this long without a sample the server ends the stream; a new one is opened, and
# the stop signal is looked at in between.
SAMPLE_SECONDS = 2.0
# Between two tries to reach a server that is gone.
_RETRY_SECONDS = 1.0


class ShardReader:
    """Fills rows with a shard's items. Of one thread, but for `close`.

    Attributes:
        address: "host:port" or "unix:/path" of the shard's replay server.
        failure: what the last try failed by that was made again; "" if none was.
    """

    def __init__(
        self,
        address: str,
        table: str,
        record_bytes: int,
        stop: threading.Event,
        drawn: Callable[[np.ndarray], None] = lambda _: None,
    ) -> None:
        """Connects when it is used.

        Args:
            address: see above.
            table: name of the table.
            record_bytes: of each record.
            stop: ends `fill`.
            drawn: told the priorities float64[n] of what has been drawn, in order and at once.
        """
        self.address = address
        self.failure = ""
        self._table = table
        self._record_bytes = record_bytes
        self._stop = stop
        self._drawn = drawn
        self._stream = SampleStream(address, table, SAMPLE_SECONDS)
        # Whether the server is known to hold what it should.
        self._checked = False

    def fill(self, rows: Records) -> bool:
        """Draws until all rows are filled, through time-outs and the server's restarts.

        Blocks as long as the rate limiter does, or the server is gone; until `stop`, which is looked at
        every `SAMPLE_SECONDS`, or at once by `close`.

        Returns:
            Whether they are; not, when stopped.

        Raises:
            SchemaError: if the table is not there, or holds other records.
            ResponseError, ValueError: if the server delivers something else than records.
        """
        filled = 0
        while filled < len(rows) and not self._stop.is_set():
            try:
                self._check_once()
                for priorities in self._stream.take(rows.part(filled, len(rows))):
                    filled += len(priorities)
                    self._drawn(priorities)
            # What the server or the network did; who waits for a batch waits as long as it likes.
            except ReplayError as error:
                self._checked = False
                if not self._stop.is_set():
                    self.failure = str(error)
                    logging.warning(
                        "reading table %r at %s again after: %s", self._table, self.address, error
                    )
                    self._stop.wait(_RETRY_SECONDS)
        return filled == len(rows)

    def close(self) -> None:
        """Ends a `fill` that is under way, in whatever thread, when `stop` is set."""
        self._stream.close()

    def _check_once(self) -> None:
        """Sees that a server's table holds our records, when it is first heard of, or again."""
        if not self._checked:
            server = ServerCalls(self.address)
            try:
                server.check_schema([self._table], self._record_bytes)
            finally:
                server.close()
            self._checked = True
