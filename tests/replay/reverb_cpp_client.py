"""Reverb's own client, under the server's Python: `write` or `read` ADDRESS TABLE RECORD_BYTES COUNT.

Writes records whose first byte is their number, or prints the first byte and the priority of each
that it reads, and a digest of the rest.
"""

import hashlib
import json
import sys

import numpy as np
import reverb


def record(number: int, size: int) -> np.ndarray:
    return np.concatenate([[number], np.full(size - 1, number % 3)]).astype(np.uint8)


def main(role: str, address: str, table: str, size: int, count: int) -> None:
    client = reverb.Client(address)
    if role == "write":
        with client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for number in range(count):
                writer.append([record(number, size)])
                writer.create_item(table, float(number), writer.history[0][-1])
            writer.flush(timeout_ms=20_000)
        return
    dataset = reverb.TrajectoryDataset.from_table_signature(
        address, table, max_in_flight_samples_per_worker=1, rate_limiter_timeout_ms=2000
    )
    for sample in dataset.take(count).as_numpy_iterator():
        row = np.asarray(sample.data)
        rest = hashlib.sha256(row[1:].tobytes()).hexdigest()
        print(json.dumps([int(row[0]), float(sample.info.priority), rest]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
