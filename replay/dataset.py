"""The learner's side of the replay: an iterator over a table's sampled batches."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import reverb
import tensorflow as tf

from classact.replay import records

# After this long without a sample the C++ dataset ends; it is opened again, and
# the stop signal is looked at in between.
_SAMPLE_SECONDS = 2.0
_SIGNATURE_SECONDS = 60

Batch = dict[str, np.ndarray]


class ReplayTimeoutError(TimeoutError):
    """No batch came within the time that the caller wanted to wait."""


class ReplayDataset:
    """Batches of a table, read ahead by a thread through Reverb's C++ dataset.

    Sampling removes an item from the table (`max_times_sampled=1`), so what is
    read ahead was selected earlier than it is used: one batch, and `max_in_flight`
    items in the C++ sampler. That bounds the staleness that reading ahead adds to
    less than two updates.
    """

    def __init__(
        self,
        address: str,
        table: str,
        codec: records.RecordCodec,
        batch_size: int,
        stop: threading.Event,
        transfer: Callable[[Batch], Any] = lambda batch: batch,
        max_in_flight: int | None = None,
    ) -> None:
        """Starts reading.

        Args:
            address: `host:port` of the replay server.
            table: name of the table.
            codec: unpacks records.
            batch_size: examples per batch.
            stop: ends the reading thread (within `_SAMPLE_SECONDS`).
            transfer: applied to each batch in the reading thread, for instance
                to move it to a device ahead of its use.
            max_in_flight: items that the C++ sampler may hold; default: an
                eighth of a batch.
        """
        self._address = address
        self._table = table
        self._codec = codec
        self._batch_size = batch_size
        self._stop = stop
        self._transfer = transfer
        self._max_in_flight = max_in_flight or max(1, batch_size // 8)
        self._queue: queue.Queue[Any] = queue.Queue()
        # The next batch is read when the last one has been taken.
        self._taken = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"replay reader {table}", daemon=True)
        self._thread.start()

    def next(self, timeout: float) -> Any:
        """Returns the next batch, as `transfer` returned it.

        Args:
            timeout: seconds to block at most.

        Raises:
            ReplayTimeoutError: if none came in time.
            RuntimeError: if the reading thread failed.
        """
        try:
            item = self._queue.get(timeout=timeout)
            self._taken.set()
        except queue.Empty:
            raise ReplayTimeoutError(
                f"no batch from table {self._table!r} at {self._address} in {timeout} s"
            ) from None
        if isinstance(item, Exception):
            raise RuntimeError(f"reading table {self._table!r} at {self._address} failed") from item
        return item

    def close(self, timeout: float = 2 * _SAMPLE_SECONDS) -> None:
        """Waits for the reading thread to end; call it after setting `stop`."""
        self._thread.join(timeout)

    def _read(self) -> None:
        try:
            for rows in self._full_batches():
                self._taken.clear()
                self._queue.put(self._transfer(self._codec.unpack(rows)))
                while not (self._stop.is_set() or self._taken.wait(timeout=0.5)):
                    pass
        except (tf.errors.OpError, reverb.ReverbError, ValueError, RuntimeError) as error:
            if not self._stop.is_set():
                self._queue.put(error)

    def _full_batches(self) -> Iterator[np.ndarray]:
        """Yields uint8[batch_size, N]; what a time-out cut short is kept, not lost."""
        rest = np.empty((0, self._codec.num_bytes), np.uint8)
        while not self._stop.is_set():
            dataset = reverb.TrajectoryDataset.from_table_signature(
                self._address,
                self._table,
                max_in_flight_samples_per_worker=self._max_in_flight,
                num_workers_per_iterator=1,
                rate_limiter_timeout_ms=int(1000 * _SAMPLE_SECONDS),
                get_signature_timeout_secs=_SIGNATURE_SECONDS,
            )
            batches = dataset.map(_data).batch(self._batch_size).with_options(_options())
            for rows in batches.as_numpy_iterator():
                if self._stop.is_set():
                    return
                rows = np.concatenate([rest, rows]) if len(rest) else rows
                if len(rows) >= self._batch_size:
                    yield rows[: self._batch_size]
                rest = rows[self._batch_size :] if len(rows) >= self._batch_size else rows


def _options() -> tf.data.Options:
    """Without the optimisations that would read two more batches ahead."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return options


# Converted, it would leave a generated file in the temporary directory.
@tf.autograph.experimental.do_not_convert
def _data(sample: reverb.ReplaySample) -> tf.Tensor:
    return sample.data


class TableStatistics:
    """Asks a server for the size and the counts of a table."""

    def __init__(self, address: str, table: str) -> None:
        """Connects to `host:port`."""
        self._client = reverb.Client(address)
        self._table = table

    def __call__(self) -> dict[str, float]:
        """Returns `size`, `inserts` and `samples`, in items.

        Raises:
            RuntimeError: if the server does not answer within ten seconds.
        """
        info = self._client.server_info(timeout=10)[self._table]
        return {
            "size": float(info.current_size),
            "inserts": float(info.rate_limiter_info.insert_stats.completed),
            "samples": float(info.rate_limiter_info.sample_stats.completed),
        }
