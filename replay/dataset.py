"""The learner's side of the replay: an iterator over a table's sampled batches."""

import collections
import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from classact.replay import pace, records
from classact.replay.server_calls import ServerCalls
from classact.replay.shard_reader import SAMPLE_SECONDS, ShardReader

# For the counts of a table.
_STATISTICS_SECONDS = 10.0

# Longest single wait of a thread that may not begin yet, between two looks at the stop signal.
_POLL_SECONDS = 0.5

Batch = dict[str, np.ndarray]


class ReplayTimeoutError(TimeoutError):
    """No batch came within the time that the caller wanted to wait."""


class _TransferError(Exception):
    """The caller's `transfer` failed."""


class _InFlight:
    """A batch that is being read.

    Attributes:
        records: of all shards, one shard's after the other's.
        missing: the shards whose part has not been read.
        given: what `transfer` made of it, in a list; empty until then.
    """

    def __init__(self, rows: records.Records, shards: int) -> None:
        self.records = rows
        self.missing = set(range(shards))
        self.given: list[Any] = []


class ReplayDataset:
    """Batches of a table, read ahead by a thread per shard.

    Where a table filters it gives out the item of the smallest priority, so the law by
    which examples are drawn is in the priorities that the writers give them.

    Sampling removes an item from the table (`max_times_sampled=1`), so what is
    read ahead was selected earlier than it is used, and is what a process that dies has drawn
    in vain: `read_ahead` batches at most, and as many only if reading one takes about so many
    updates. Each is asked for so late that it comes just in time (`pace`), and the first one after those
    that are read ahead when `next` has given one. Each thread reads the parts of its shard in turn, so
    that batches have the order in which the table gave its items out.

    A data set's table may be spread over K servers, its shards, each filled by
    run loops of its own. A batch has batch_size / K examples of every shard, one
    shard's after the other's, in one piece of memory, and waits for the slowest: none gets further
    ahead of the others than its parts of `read_ahead` batches.

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
        read_ahead: int = 1,
    ) -> None:
        """Starts reading.

        Args:
            addresses: "host:port" or "unix:/path" of the replay server of each shard.
            table: name of the table.
            codec: unpacks records.
            batch_size: examples per batch.
            stop: ends the reading threads (within `SAMPLE_SECONDS`, or at once by `close`).
            transfer: applied to each batch in a reading thread, for instance
                to move it to a device ahead of its use; of one batch after the other.
            remembered: how many of the last batches `recent` always gives; each keeps its memory.
            first: uint8[n · batch_size, bytes], records of batches to give before the
                first one that is read: of `recent` of an earlier process.
            drawn: told in a reading thread of each shard the priorities float64[n] of what
                has been drawn of it, in order and at once.
            read_ahead: batches that have at most left the table and were not given.

        Raises:
            ValueError: if the batch cannot be taken in equal parts.
        """
        if not addresses or batch_size % len(addresses):
            raise ValueError(
                f"batch_size={batch_size}: no multiple of {len(addresses)}, the number of shards"
            )
        self._table = table
        self._codec = codec
        self._blocks = codec.blocks(batch_size)
        self._batch_size = batch_size
        self._part_size = batch_size // len(addresses)
        self._stop = stop
        self._transfer = transfer
        self._transferring = threading.Lock()
        self._read_ahead = read_ahead
        # What the last batches were made of.
        self._always_remembered = remembered
        self._recent: collections.deque[records.Records] = collections.deque(maxlen=remembered)
        self._first = collections.deque(
            np.split(first, len(first) // batch_size) if first is not None else ()
        )
        self._error: Exception | None = None
        # By their numbers; those below `_taken` have been given.
        self._in_flight: dict[int, _InFlight] = {}
        self._taken = 0
        self._wanted = False
        self._pace = pace.Pace()
        self._turn = threading.Condition()
        self._readers = [
            ShardReader(address, table, codec.num_bytes, stop, _of_shard(drawn, shard))
            for shard, address in enumerate(addresses)
        ]
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
            found = self._codec.taken_apart(self._first.popleft())
            self._recent.append(found)
            return self._transfer(self._codec.unpack(found))
        with self._turn:
            self._wanted = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._is_whole() or self._error, timeout)
            if not self._is_whole():
                if self._error is not None:
                    raise self._error
                raise ReplayTimeoutError(
                    f"no batch from table {self._table!r} at {self._late()} in {timeout} s{self._failures()}"
                )
            batch = self._in_flight.pop(self._taken)
            self._recent.append(batch.records)
            self._taken += 1
            self._wanted = False
            self._pace.taken()
            self._turn.notify_all()
        return batch.given[0]

    def remember(self, batches: int) -> None:
        """From now on `recent` gives so many batches more than it always does; it forgets none for that."""
        self._recent = collections.deque(self._recent, self._always_remembered + batches)

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
        chosen = [batch.packed() for batch in list(self._recent)[-batches:]] if batches else []
        if len(chosen) == 1:
            return chosen[0]
        return np.concatenate(chosen) if chosen else np.empty((0, self._codec.num_bytes), np.uint8)

    def close(self, timeout: float = 2 * SAMPLE_SECONDS) -> None:
        """Ends the reading threads, and waits for them; call it after setting `stop`."""
        deadline = time.monotonic() + timeout
        for reader in self._readers:
            reader.close()
        with self._turn:
            self._turn.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _is_whole(self) -> bool:
        """Whether the next batch can be given."""
        return self._taken in self._in_flight and bool(self._in_flight[self._taken].given)

    def _late(self) -> str:
        """The addresses that have not delivered their part of the next batch."""
        if len(self._readers) == 1:
            return self._readers[0].address
        batch = self._in_flight.get(self._taken)
        late = sorted(batch.missing) if batch else []
        return ", ".join(f"shard {shard} ({self._readers[shard].address})" for shard in late) or "all shards"

    def _failures(self) -> str:
        failures = [reader.failure for reader in self._readers if reader.failure]
        return f"; the last try failed: {failures[-1]}" if failures else ""

    def _read(self, shard: int) -> None:
        try:
            for number in itertools.count():
                rows = self._begin(shard, number)
                if rows is None:
                    return
                started = time.monotonic()
                if not self._readers[shard].fill(rows):
                    return
                # This thread holds no memory while it waits for its next turn.
                del rows
                self._hand_in(shard, number)
                # What `transfer` takes is a part of it.
                with self._turn:
                    self._pace.drawn(time.monotonic() - started)
        # Whatever it was: who waits for a batch must hear of it.
        except Exception as error:
            failure = RuntimeError(f"reading table {self._table!r} at {self._readers[shard].address} failed")
            failure.__cause__ = error.__cause__ if isinstance(error, _TransferError) else error
            with self._turn:
                self._error = self._error or failure
                self._turn.notify_all()

    def _begin(self, shard: int, number: int) -> records.Records | None:
        """A shard's rows of a batch, once it is time to read them; None when stopped."""
        with self._turn:
            while not self._stop.is_set():
                ahead = number - self._taken + 1
                delay = self._pace.delay(ahead) if ahead <= self._read_ahead else None
                if delay == 0.0 or (self._wanted and ahead == 1):
                    if number not in self._in_flight:
                        rows = self._codec.empty(self._batch_size, self._blocks)
                        self._in_flight[number] = _InFlight(rows, len(self._readers))
                    first = shard * self._part_size
                    return self._in_flight[number].records.part(first, first + self._part_size)
                # The stop signal may come without a `close`.
                self._turn.wait(_POLL_SECONDS if delay is None else min(delay, _POLL_SECONDS))
        return None

    def _hand_in(self, shard: int, number: int) -> None:
        """Tells that a shard's part of a batch is there; whoever brings the last one transfers it."""
        with self._turn:
            batch = self._in_flight[number]
            batch.missing.discard(shard)
            if batch.missing:
                return
        try:
            # Another thread may have the batch before it in its hands.
            with self._transferring:
                given = self._transfer(self._codec.unpack(batch.records))
        # Whatever it was: it must not be taken for the server's.
        except Exception as error:
            raise _TransferError from error
        with self._turn:
            batch.given.append(given)
            self._turn.notify_all()


def _of_shard(drawn: Callable[[int, np.ndarray], None] | None, shard: int) -> Callable[[np.ndarray], None]:
    return (lambda priorities: None) if drawn is None else functools.partial(drawn, shard)


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
