"""Replay insert and sample, in items and bytes per second, against bare Reverb.

One process writes, another holds the server, and a third takes what the rate
limiter gives it: every second item, with the demo's filter ratio. Three pairs of
writer and reader move the same images, of 3 KB (32 × 32) and of 150 KB (224 × 224):

- classact: `ReplayWriter` and `ReplayDataset`, packing and unpacking included;
- bare, records: Reverb's own trajectory writer and dataset, for records that lie
  packed already: the least that Reverb can be asked to do for this;
- bare, columns: the same with a column per field, as one would write it first.

The counts are the server's own, so what is still under way does not count. The
images are random bytes: Reverb compresses, and these cannot be.

Command:
    python benchmarks/replay_throughput.py
"""

import argparse
import collections
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import figures
import numpy as np
import psutil
import replay_server
from figures import Figure

from classact.replay.config import TableConfig

_OURS, _RECORDS, _COLUMNS = "classact", "bare, records", "bare, columns"
_SHAPES = {"3 KB": (32, 32, 3), "150 KB": (224, 224, 3)}
_TABLES = TableConfig(batch_size=64, samples_per_insert=0.5, capacity=1024)
_WRITTEN_AT_ONCE = 128
# The same for the bare writers as `ReplayWriter` has.
_PENDING = 24

Batch = dict[str, np.ndarray]


class _Rate(NamedTuple):
    """What one pair of writer and reader did: items/s, and CPU-seconds per inserted item."""

    inserted: float
    sampled: float
    cpu: float


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    from classact.replay import records

    seconds, rounds = (1.0, 1) if options.quick else (options.seconds, options.rounds)
    batches = {size: [_random_batch(shape, seed) for seed in range(4)] for size, shape in _SHAPES.items()}
    codecs = {size: records.RecordCodec(_unscored(some[0])) for size, some in batches.items()}
    schemas: dict[str, replay_server.Schema] = {}
    for size, codec in codecs.items():
        example = {name: array[0] for name, array in batches[size][0].items()}
        schemas |= {f"{_OURS} {size}": codec.num_bytes, f"{_RECORDS} {size}": codec.num_bytes}
        schemas[f"{_COLUMNS} {size}"] = example
    rates: dict[tuple[str, str], list[_Rate]] = collections.defaultdict(list)
    with replay_server.serving(_TABLES, schemas) as served:
        for _, kind in itertools.product(range(rounds), (_OURS, _RECORDS, _COLUMNS)):
            read = {f"{kind} {size}": codecs[size] if kind == _OURS else None for size in _SHAPES}
            with replay_server.reading(served.address, read, _TABLES.batch_size) as reader:
                for size in _SHAPES:
                    table = f"{kind} {size}"
                    writes = _writer(kind, served.address, table, batches[size], codecs[size])
                    rates[size, kind].append(_rate(served, reader, table, writes, seconds))
    found = []
    for size, shape in _SHAPES.items():
        found += _figures(
            size, int(np.prod(shape)), {kind: rates[size, kind] for kind in (_OURS, _RECORDS, _COLUMNS)}
        )
    return found


def _figures(size: str, image_bytes: int, rates: dict[str, list[_Rate]]) -> list[Figure]:
    middle = {name: _Rate(*map(statistics.median, zip(*some, strict=True))) for name, some in rates.items()}
    ours = middle[_OURS]
    found = [
        Figure(f"replay, {size}: classact / {name}", ours.inserted / middle[name].inserted)
        for name in (_RECORDS, _COLUMNS)
    ]
    for name, rate in middle.items():
        moved = (rate.inserted + rate.sampled) * image_bytes
        found += [
            Figure(f"  {name}: inserted", rate.inserted, "items/s"),
            Figure(f"  {name}: sampled", rate.sampled, "items/s"),
            Figure(f"  {name}: both", moved / 1e6, "MB/s"),
            Figure(f"  {name}: CPU of all three", 1e6 * rate.cpu, "us/insert"),
        ]
    return found


def _rate(
    served: replay_server.Served, reader: int, table: str, writes: Iterator[None], seconds: float
) -> _Rate:
    """Lets a writer write; each step of the iterator is one batch."""
    import reverb

    client = reverb.Client(served.address)
    processes = [psutil.Process(pid) for pid in (served.pid, reader)]

    def read() -> tuple[float, float, float, float]:
        info = client.server_info(timeout=10)[table].rate_limiter_info
        times = [process.cpu_times() for process in processes]
        cpu = time.process_time() + sum(spent.user + spent.system for spent in times)
        return time.monotonic(), info.insert_stats.completed, info.sample_stats.completed, cpu

    # To get under way, the table must be half full.
    _write_for(writes, seconds / 2)
    before = read()
    _write_for(writes, seconds)
    elapsed, inserted, sampled, cpu = (now - then for now, then in zip(read(), before, strict=True))
    return _Rate(inserted / elapsed, sampled / elapsed, cpu / inserted)


def _write_for(writes: Iterator[None], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        next(writes)


def _writer(kind: str, address: str, table: str, batches: list[Batch], codec: Any) -> Iterator[None]:
    """Writes batch after batch, one a step."""
    if kind == _OURS:
        return _write_classact(address, table, batches, codec)
    if kind == _RECORDS:
        return _write_bare(address, table, [list(codec.pack(b)) for b in batches], lambda made: made[-1])
    rows = [[{k: a[i] for k, a in batch.items()} for i in range(_WRITTEN_AT_ONCE)] for batch in batches]
    return _write_bare(address, table, rows, lambda made: {name: column[-1] for name, column in made.items()})


def _write_classact(address: str, table: str, batches: list[Batch], codec: Any) -> Iterator[None]:
    from classact.replay import writer as writer_lib

    writer = writer_lib.ReplayWriter(address, codec, (table,), threading.Event())
    priorities = np.ones(_WRITTEN_AT_ONCE)
    keep = np.ones(_WRITTEN_AT_ONCE, bool)
    for batch in itertools.cycle(batches):
        writer.write(batch, priorities, keep)
        yield


def _write_bare(
    address: str, table: str, batches: list[list[Any]], newest: Callable[[Any], Any]
) -> Iterator[None]:
    import reverb

    writer = reverb.Client(address).trajectory_writer(num_keep_alive_refs=1)
    for steps in itertools.cycle(batches):
        for start in range(0, len(steps), _PENDING):
            for step in steps[start : start + _PENDING]:
                writer.append(step)
                writer.create_item(table, 1.0, newest(writer.history))
            writer.flush(_PENDING)
        yield


def _unscored(batch: Batch) -> Batch:
    return {name: array for name, array in batch.items() if name not in ("score", "scored_step")}


def _random_batch(shape: tuple[int, int, int], seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    return {
        "id": np.arange(_WRITTEN_AT_ONCE),
        "image": rng.integers(0, 256, (_WRITTEN_AT_ONCE, *shape), np.uint8),
        "label": np.zeros(_WRITTEN_AT_ONCE, np.int32),
        "score": np.zeros(_WRITTEN_AT_ONCE, np.float32),
        "scored_step": np.zeros(_WRITTEN_AT_ONCE, np.int64),
    }


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=float, default=5.0, help="length of a window")
    made.add_argument("--rounds", type=int, default=3, help="windows of each kind, taken in turns")
    return made


if __name__ == "__main__":
    figures.run("replay_throughput", parser(), measure)
