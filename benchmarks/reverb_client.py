"""Writes to a replay, or reads from it, through Reverb's own C++ client, to compare with `replay_client.py`.

Runs under the replay server's Python, which has Reverb; imports nothing of classact. The records are
random bytes, packed already: the least that Reverb can be asked to do. Writers flush every 24
items, and readers have an eighth of a batch under way, as classact had it with this client.

Command:
    <server's Python> benchmarks/reverb_client.py write|read|delay ADDRESS TABLE RECORD_BYTES NUMBER

NUMBER: of the writers, threads as a run's; or of the examples in a batch.
"""

import itertools
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import reverb
import tensorflow as tf

_WRITTEN_AT_ONCE = 128
_PENDING = 24
_DELAYS = 300
_SECONDS = 30.0


def main(role: str, address: str, table: str, record_bytes: int, number: int) -> None:
    """Does not return, but for a delay."""
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (_WRITTEN_AT_ONCE, record_bytes), np.uint8) for _ in range(4)]
    if role == "delay":
        print(json.dumps(_delays(address, table, batches[0][0])))
        return
    if role == "write":
        for _ in range(number):
            threading.Thread(target=_write, args=(address, table, batches), daemon=True).start()
    else:
        threading.Thread(target=_read, args=(address, table, number), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    # The threads stand inside C++: they end with the process.
    os._exit(0)


def _write(address: str, table: str, batches: list[np.ndarray]) -> None:
    writer = reverb.Client(address).trajectory_writer(num_keep_alive_refs=1)
    # `TrajectoryWriter.append` keeps a Python history of every column, which costs as much as
    # the insertion itself; an item of one step needs none, so the C++ writer beneath is called.
    stream = writer._writer
    for rows in itertools.cycle(batches):
        for start in range(0, len(rows), _PENDING):
            for row in rows[start : start + _PENDING]:
                stream.CreateItem(table, 1.0, [stream.Append([row])], [True])
            writer.flush(_PENDING)


def _read(address: str, table: str, batch_size: int) -> None:
    for _ in _batches(address, table, batch_size):
        pass


def _batches(address: str, table: str, batch_size: int) -> Iterator[Any]:
    dataset = reverb.TrajectoryDataset.from_table_signature(
        address, table, max_in_flight_samples_per_worker=max(1, batch_size // 8), num_workers_per_iterator=1
    )
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    data = dataset.map(lambda sample: sample.data)
    return iter(data.batch(batch_size).with_options(options).as_numpy_iterator())


def _delays(address: str, table: str, row: np.ndarray) -> list[float]:
    """Seconds from the beginning of an insertion to its batch of one, with a reader that waits."""
    arrived: queue.SimpleQueue[float] = queue.SimpleQueue()
    batches = _batches(address, table, 1)

    def read() -> None:
        for _ in range(_DELAYS):
            next(batches)
            arrived.put(time.perf_counter())

    threading.Thread(target=read, daemon=True).start()
    writer = reverb.Client(address).trajectory_writer(num_keep_alive_refs=1)
    stream, found = writer._writer, []
    for _ in range(_DELAYS):
        began = time.perf_counter()
        stream.CreateItem(table, 0.0, [stream.Append([row])], [True])
        writer.flush(0)
        found.append(arrived.get(timeout=_SECONDS) - began)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
