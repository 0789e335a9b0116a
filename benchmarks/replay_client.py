"""Writes to a replay, or reads from it, as classact does: a process of its own.

Says "ready", and ends when its standard input is closed.

Command:
    python benchmarks/replay_client.py write|read TABLE RECORD_BYTES NUMBER ADDRESS…

NUMBER: of the writers, which take turns over the addresses; or of the examples in a batch.
"""

import itertools
import os
import sys
import threading
from collections.abc import Sequence

import numpy as np

from classact.replay import dataset, records, writer
from classact.selection import race

_WRITTEN_AT_ONCE = 128
_NEXT_SECONDS = 1.0


def codec_of(record_bytes: int) -> records.RecordCodec:
    """An image with an id and a label, of so many bytes in all."""
    rest = records.RecordCodec(_example(0)).num_bytes
    return records.RecordCodec(_example(record_bytes - rest))


def main(role: str, table: str, record_bytes: int, number: int, addresses: Sequence[str]) -> None:
    """Does not return."""
    codec, stop = codec_of(record_bytes), threading.Event()
    if role == "write":
        for index in range(number):
            arguments = (addresses[index % len(addresses)], table, codec, stop)
            threading.Thread(target=_write, args=arguments, daemon=True).start()
    else:
        source = dataset.ReplayDataset(addresses, table, codec, number, stop)
        threading.Thread(target=_read, args=(source,), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


def _write(address: str, table: str, codec: records.RecordCodec, stop: threading.Event) -> None:
    clock, rng = race.Clock((0.0,)), np.random.default_rng(0)
    weights, keep = np.zeros(_WRITTEN_AT_ONCE), np.ones(_WRITTEN_AT_ONCE, bool)
    record = rng.integers(0, 256, (4, _WRITTEN_AT_ONCE, codec.num_bytes), np.uint8)
    batches = [codec.unpack(rows) for rows in record]
    out = writer.ReplayWriter(address, codec, (table,), stop)
    for batch in itertools.cycle(batches):
        out.write(batch, lambda rows: clock.keys(weights[rows], rng), keep)


def _read(source: dataset.ReplayDataset) -> None:
    while True:
        try:
            source.next(_NEXT_SECONDS)
        except dataset.ReplayTimeoutError:
            # Before the writers begin, and after they have ended, nothing comes.
            continue


def _example(image_bytes: int) -> dict[str, np.ndarray]:
    return {
        "id": np.zeros(1, np.int64),
        "image": np.zeros((1, image_bytes), np.uint8),
        "label": np.zeros(1, np.int32),
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
