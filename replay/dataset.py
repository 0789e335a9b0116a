"""The learner's side of the replay: an iterator over a table's sampled batches."""

import collections
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from classact.replay import pace, records
from classact.replay.sample_stream import SampleStream
from classact.replay.server_calls import ReplayError, ServerCalls

# After this long without a sample the server ends the stream; a new one is opened, and
# the stop signal is looked at in between.
_SAMPLE_SECONDS = 2.0
# Between two tries to reach a server that is gone.
_RETRY_SECONDS = 1.0
# For the counts of a table.
_STATISTICS_SECONDS = 10.0

Batch = dict[str, np.ndarray]


class ReplayTimeoutError(TimeoutError):
    """No batch came within the time that the caller wanted to wait."""


class _TransferError(Exception):
    """The caller's `transfer` failed."""


class ReplayDataset:
    """Batches of a table, read ahead by a thread per shard.

    Where a table filters it gives out the item of the smallest priority, so the law by
    which examples are drawn is in the priorities that the writers give them.

    Sampling removes an item from the table (`max_times_sampled=1`), so what is
    read ahead was selected earlier than it is used, and is what a process that dies has drawn
    in vain: one batch, as the next one is asked for only when `next` has given it, and so late
    that it comes just in time (`pace`).

    A data set's table may be spread over K servers, its shards, each filled by
    run loops of its own. A batch has batch_size / K examples of every shard, one
    shard's after the other's, and waits for the slowest: none gets further ahead
    of the others than its part of one batch.

    With the priorities of `selection.race` the sampling law is then softmax over each
    shard, stratified by shards. Of what shard k holds, the next example is the one with
    score s with probability exp(s / temperature) / Z_k, where Z_k is the sum of exp(s / temperature) over
    shard k; one table of all shards' items would have Z, the sum of all Z_k.
    So examples of shard k are drawn Z / (K · Z_k) times as often as from one
    table: those of a shard with more than its share of the weight too rarely.
    Run loops draw IID and do not choose the shard by the example, so shards are
    exchangeable random parts of the stream, and this factor is 1 up to about
    c · sqrt((1 − 1/K) / n), with n the items in a shard and c the standard
    deviation of exp(s / temperature) over its mean: the law tends to softmax over
    all as shards grow, later the lower the temperature is.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        table: str,
        codec: records.RecordCodec,
        batch_size: int,
        stop: threading.Event,
        transfer: Callable[[Batch], Any] = lambda batch: batch,
        remembered: int = 0,
        first: np.ndarray | None = None,
        drawn: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        """Starts reading.

        Args:
            addresses: "host:port" or "unix:/path" of the replay server of each shard.
            table: name of the table.
            codec: unpacks records.
            batch_size: examples per batch.
            stop: ends the reading threads (within `_SAMPLE_SECONDS`, or at once by `close`).
            transfer: applied to each batch in a reading thread, for instance
                to move it to a device ahead of its use.
            remembered: how many of the last batches `recent` gives.
            first: uint8[n · batch_size, bytes], records of batches to give before the
                first one that is read: of `recent` of an earlier process.
            drawn: told in a reading thread of each shard the priorities float64[n] of what
                has been drawn of it, in order and at once.

        Raises:
            ValueError: if the batch cannot be taken in equal parts.
        """
        if not addresses or batch_size % len(addresses):
            raise ValueError(
                f"batch_size={batch_size}: no multiple of {len(addresses)}, the number of shards"
            )
        self._addresses = tuple(addresses)
        self._table = table
        self._codec = codec
        self._part_size = batch_size // len(addresses)
        self._stop = stop
        self._transfer = transfer
        self._drawn = drawn
        self._queue: queue.Queue[Any] = queue.Queue()
        # What the last batches were made of.
        self._recent: collections.deque[np.ndarray] = collections.deque(maxlen=remembered)
        self._first = collections.deque(
            np.split(first, len(first) // batch_size) if first is not None else ()
        )
        self._failure = ""
        # Shards whose servers hold what they should.
        self._checked: set[int] = set()
        self._streams = [SampleStream(address, table, _SAMPLE_SECONDS) for address in addresses]
        # The parts of the next batch by shard, until it has been taken; then each
        # thread reads its part of the one after it.
        self._parts: dict[int, np.ndarray] = {}
        self._taken = 0
        self._wanted = False
        self._pace = pace.Pace()
        self._turn = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(shard,), name=f"replay reader {table}", daemon=True)
            for shard in range(len(addresses))
        ]
        for thread in self._threads:
            thread.start()

    def next(self, timeout: float) -> Any:
        """Returns the next batch, as `transfer` returned it.

        Args:
            timeout: seconds to block at most.

        Raises:
            ReplayTimeoutError: if none came in time; it names the shards whose
                part is missing.
            RuntimeError: if a reading thread failed.
        """
        if self._first:
            records = self._first.popleft()
            self._recent.append(records)
            return self._transfer(self._codec.unpack(records))
        with self._turn:
            self._wanted = True
            self._turn.notify_all()
        try:
            item = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise ReplayTimeoutError(
                f"no batch from table {self._table!r} at {self._late()} in {timeout} s{self._failure}"
            ) from None
        if isinstance(item, Exception):
            raise item
        records, batch = item
        self._recent.append(records)
        with self._turn:
            self._parts.clear()
            self._taken += 1
            self._wanted = False
            self._pace.taken()
            self._turn.notify_all()
        return batch

    @property
    def first_left(self) -> int:
        """How many batches of an earlier process `next` gives before those that it draws."""
        return len(self._first)

    def recent(self, batches: int) -> np.ndarray:
        """Returns the records of the last batches that `next` gave, uint8[batches · batch_size, bytes].

        Fewer if it has not given so many; raises ValueError if they are not remembered.
        """
        if batches > (self._recent.maxlen or 0):
            raise ValueError(f"batches={batches}: only the last {self._recent.maxlen} are remembered")
        chosen = list(self._recent)[-batches:] if batches else []
        if len(chosen) == 1:
            return chosen[0]
        return np.concatenate(chosen) if chosen else np.empty((0, self._codec.num_bytes), np.uint8)

    def close(self, timeout: float = 2 * _SAMPLE_SECONDS) -> None:
        """Ends the reading threads, and waits for them; call it after setting `stop`."""
        deadline = time.monotonic() + timeout
        for stream in self._streams:
            stream.close()
        with self._turn:
            self._turn.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _late(self) -> str:
        """The addresses that have not delivered their part of the next batch."""
        if len(self._addresses) == 1:
            return self._addresses[0]
        late = [shard for shard in range(len(self._addresses)) if shard not in self._parts]
        return ", ".join(f"shard {shard} ({self._addresses[shard]})" for shard in late) or "all shards"

    def _read(self, shard: int) -> None:
        try:
            while not self._stop.is_set():
                with self._turn:
                    self._turn.wait_for(lambda: self._wanted or self._stop.is_set(), self._pace.delay())
                rows = np.empty((self._part_size, self._codec.num_bytes), np.uint8)
                started = time.monotonic()
                self._fill(shard, rows)
                if not self._stop.is_set():
                    self._hand_in(shard, rows, started)
        # Whatever it was: who waits for a batch must hear of it.
        except Exception as error:
            failure = RuntimeError(f"reading table {self._table!r} at {self._addresses[shard]} failed")
            failure.__cause__ = error.__cause__ if isinstance(error, _TransferError) else error
            self._queue.put(failure)

    def _fill(self, shard: int, rows: np.ndarray) -> None:
        """Draws a part, through time-outs and the server's restarts, until it is whole, or `stop`."""
        address, filled = self._addresses[shard], 0
        while filled < len(rows) and not self._stop.is_set():
            try:
                self._check_once(shard)
                for priorities in self._streams[shard].take(rows[filled:]):
                    filled += len(priorities)
                    if self._drawn is not None:
                        self._drawn(shard, priorities)
            # What the server or the network did; the caller of `next` waits as long as it likes.
            except ReplayError as error:
                self._checked.discard(shard)
                if not self._stop.is_set():
                    self._failure = f"; the last try failed: {error}"
                    logging.warning("reading table %r at %s again after: %s", self._table, address, error)
                    self._stop.wait(_RETRY_SECONDS)

    def _check_once(self, shard: int) -> None:
        """Sees that a server's table holds our records, when it is first heard of, or again."""
        if shard not in self._checked:
            server = ServerCalls(self._addresses[shard])
            try:
                server.check_schema([self._table], self._codec.num_bytes)
            finally:
                server.close()
            self._checked.add(shard)

    def _hand_in(self, shard: int, rows: np.ndarray, started: float) -> None:
        """Adds a part to the next batch; the last makes it whole. Blocks until it is taken, or `stop`.

        `started`: when it was begun to be drawn. What `transfer` takes is a part of its time.
        """
        with self._turn:
            taken = self._taken
            self._parts[shard] = rows
            complete = len(self._parts) == len(self._addresses)
        item = None
        if complete:
            # Views of the only shard's records, or a copy of all shards'.
            parts = [self._parts[shard] for shard in range(len(self._addresses))]
            records = parts[0] if len(parts) == 1 else np.concatenate(parts)
            try:
                item = records, self._transfer(self._codec.unpack(records))
            # Whatever it was: it must not be taken for the server's.
            except Exception as error:
                raise _TransferError from error
        with self._turn:
            self._pace.drawn(time.monotonic() - started)
        if item is not None:
            self._queue.put(item)
        with self._turn:
            while not self._stop.is_set() and self._taken == taken:
                self._turn.wait(timeout=0.5)


class TableStatistics:
    """Asks the servers of a data set for the size and the counts of a table."""

    def __init__(self, addresses: Sequence[str], table: str) -> None:
        """Connects when it is first asked.

        Args:
            addresses: "host:port" or "unix:/path" of the replay server of each shard.
            table: its name.
        """
        self._servers = [ServerCalls(address) for address in addresses]
        self._table = table

    def __call__(self) -> dict[str, float]:
        """Returns `size`, `inserts` and `samples` of all shards together, in items.

        With several shards also each one's size, as `shard_<index>/size`.

        Raises:
            ReplayError: if a server does not answer within ten seconds.
        """
        found = {"size": 0.0, "inserts": 0.0, "samples": 0.0}
        for shard, server in enumerate(self._servers):
            info = server.tables(_STATISTICS_SECONDS)[self._table]
            found["size"] += info.current_size
            found["inserts"] += info.limiter.inserts.completed
            found["samples"] += info.limiter.samples.completed
            if len(self._servers) > 1:
                found[f"shard_{shard}/size"] = float(info.current_size)
        return found
