"""Replay insert and sample, in items and bytes per second, against bare Reverb.

One process writes, another holds the server, and a third takes what the rate
limiter gives it: every second item, with the demo's filter ratio. Three pairs of
writer and reader move the same images, of 3 KB (32 × 32) and of 150 KB (224 × 224):

- classact: `ReplayWriter` and `ReplayDataset`, packing and unpacking included;
- bare, records: Reverb's own trajectory writer and dataset, for records that lie
  packed already: the least that Reverb can be asked to do for this;
- bare, columns: the same with a column per field, as one would write it first.

Then the first pair with 1, 2 and 4 shards, each a server process: four writers in one
process, spread over the shards, and one reader of all. The batch, 256, and the capacity
are of all shards together, as in a run, so only the number of servers differs.

The counts are the servers' own, so what is still under way does not count. The
images are random bytes: Reverb compresses, and these cannot be.

Command:
    python benchmarks/replay_throughput.py
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
_SHARDS = (1, 2, 4)
_ALL_SHARDS = TableConfig(batch_size=256, samples_per_insert=0.5, capacity=2048)
_SHARD_WRITERS = 4
# The same for the bare writers as `ReplayWriter` has.
_PENDING = 24

Batch = dict[str, np.ndarray]


class _Rate(NamedTuple):
    """What was done at once: items/s, and CPU-seconds of each side per inserted item."""

    inserted: float
    sampled: float
    writing: float
    serving: float
    reading: float


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    from classact.replay import records

    seconds, rounds = (1.0, 1) if options.quick else (options.seconds, options.rounds)
    batches = {size: [_random_batch(shape, seed) for seed in range(4)] for size, shape in _SHAPES.items()}
    codecs = {size: records.RecordCodec(_unscored(some[0])) for size, some in batches.items()}
    found = _measure_pairs(batches, codecs, seconds, rounds)
    return found + _measure_shards(batches, codecs, seconds, rounds)


def _measure_pairs(
    batches: Mapping[str, list[Batch]], codecs: Mapping[str, Any], seconds: float, rounds: int
) -> list[Figure]:
    tables: dict[str, tuple[TableConfig, replay_server.Schema]] = {}
    for size, codec in codecs.items():
        example = {name: array[0] for name, array in batches[size][0].items()}
        tables |= {f"{kind} {size}": (_TABLES, codec.num_bytes) for kind in (_OURS, _RECORDS)}
        tables[f"{_COLUMNS} {size}"] = (_TABLES, example)
    rates: dict[tuple[str, str], list[_Rate]] = collections.defaultdict(list)
    with replay_server.serving(tables) as served:
        for _, kind in itertools.product(range(rounds), (_OURS, _RECORDS, _COLUMNS)):
            read = {f"{kind} {size}": codecs[size] if kind == _OURS else None for size in _SHAPES}
            with replay_server.reading([served.address], read, _TABLES.batch_size) as reader:
                for size in _SHAPES:
                    table = f"{kind} {size}"
                    writes = _writer(kind, served.address, table, batches[size], codecs[size])
                    write_for = functools.partial(_write_for, writes)
                    rates[size, kind].append(_rate([served], reader, table, write_for, seconds))
    found = []
    for size, shape in _SHAPES.items():
        found += _figures(
            size, int(np.prod(shape)), {kind: rates[size, kind] for kind in (_OURS, _RECORDS, _COLUMNS)}
        )
    return found


def _measure_shards(
    batches: Mapping[str, list[Batch]], codecs: Mapping[str, Any], seconds: float, rounds: int
) -> list[Figure]:
    """Throughput and CPU by the number of shards, in turns."""
    tables: dict[str, tuple[TableConfig, replay_server.Schema]] = {}
    for shards, (size, codec) in itertools.product(_SHARDS, codecs.items()):
        of_shard = dataclasses.replace(
            _ALL_SHARDS,
            batch_size=_ALL_SHARDS.batch_size // shards,
            capacity=_ALL_SHARDS.capacity // shards,
        )
        tables[_shard_table(size, shards)] = (of_shard, codec.num_bytes)
    rates: dict[tuple[str, int], list[_Rate]] = collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(replay_server.serving(tables)) for _ in range(max(_SHARDS))]
        for _, shards in itertools.product(range(rounds), _SHARDS):
            used = servers[:shards]
            addresses = [served.address for served in used]
            read = {_shard_table(size, shards): codec for size, codec in codecs.items()}
            with replay_server.reading(addresses, read, _ALL_SHARDS.batch_size) as reader:
                for size, codec in codecs.items():
                    table = _shard_table(size, shards)
                    with _shard_writers(addresses, table, batches[size], codec):
                        rates[size, shards].append(_rate(used, reader, table, time.sleep, seconds))
    found = []
    for size, shards in itertools.product(codecs, _SHARDS):
        rate = _median(rates[size, shards])
        found += [
            Figure(f"replay, {size}, shards: {shards}: inserted", rate.inserted, "items/s"),
            Figure("  sampled", rate.sampled, "items/s"),
            Figure("  CPU of the writers", 1e6 * rate.writing, "us/insert"),
            Figure("  CPU of the servers", 1e6 * rate.serving, "us/insert"),
            Figure("  CPU of the reader", 1e6 * rate.reading, "us/insert"),
        ]
    return found


def _shard_table(size: str, shards: int) -> str:
    return f"{size}, shards: {shards}"


@contextlib.contextmanager
def _shard_writers(addresses: Sequence[str], table: str, batches: list[Batch], codec: Any) -> Iterator[None]:
    """Writes to all shards until the block ends."""
    stop = threading.Event()

    def write(index: int) -> None:
        writes = _write_classact(addresses[index % len(addresses)], table, batches, codec, stop)
        while not stop.is_set():
            next(writes)
        writes.close()

    threads = [threading.Thread(target=write, args=(index,)) for index in range(_SHARD_WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _median(rates: Sequence[_Rate]) -> _Rate:
    return _Rate(*map(statistics.median, zip(*rates, strict=True)))


def _figures(size: str, image_bytes: int, rates: dict[str, list[_Rate]]) -> list[Figure]:
    middle = {name: _median(some) for name, some in rates.items()}
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
            Figure(
                f"  {name}: CPU of all three",
                1e6 * (rate.writing + rate.serving + rate.reading),
                "us/insert",
            ),
        ]
    return found


def _rate(
    servers: Sequence[replay_server.Served],
    reader: int,
    table: str,
    write_for: Callable[[float], None],
    seconds: float,
) -> _Rate:
    """Looks at the servers' counts and at all processes' CPU before and after `write_for`."""
    import reverb

    clients = [reverb.Client(served.address) for served in servers]

    def cpu(*pids: int) -> float:
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return sum(spent.user + spent.system for spent in times)

    def read() -> np.ndarray:
        infos = [client.server_info(timeout=10)[table].rate_limiter_info for client in clients]
        inserted = sum(info.insert_stats.completed for info in infos)
        sampled = sum(info.sample_stats.completed for info in infos)
        serving = cpu(*(served.pid for served in servers))
        return np.array(
            [time.monotonic(), inserted, sampled, time.process_time(), serving, cpu(reader)], np.float64
        )

    # To get under way, the table must be half full.
    write_for(seconds / 2)
    before = read()
    write_for(seconds)
    elapsed, inserted, sampled, *spent = (read() - before).tolist()
    return _Rate(inserted / elapsed, sampled / elapsed, *(seconds / inserted for seconds in spent))


def _write_for(writes: Iterator[None], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        next(writes)


def _writer(kind: str, address: str, table: str, batches: list[Batch], codec: Any) -> Iterator[None]:
    """Writes batch after batch, one a step."""
    if kind == _OURS:
        return _write_classact(address, table, batches, codec, threading.Event())
    if kind == _RECORDS:
        return _write_bare(address, table, [list(codec.pack(b)) for b in batches], lambda made: made[-1])
    rows = [[{k: a[i] for k, a in batch.items()} for i in range(_WRITTEN_AT_ONCE)] for batch in batches]
    return _write_bare(address, table, rows, lambda made: {name: column[-1] for name, column in made.items()})


def _write_classact(
    address: str, table: str, batches: list[Batch], codec: Any, stop: threading.Event
) -> Generator[None, None, None]:
    from classact.replay import writer as writer_lib
    from classact.selection import race

    clock, weights, rng = race.Clock((0.0,)), np.zeros(_WRITTEN_AT_ONCE), np.random.default_rng(0)
    keep = np.ones(_WRITTEN_AT_ONCE, bool)
    with contextlib.closing(writer_lib.ReplayWriter(address, codec, (table,), stop)) as writer:
        for batch in itertools.cycle(batches):
            writer.write(batch, lambda rows: clock.keys(weights[rows], rng), keep)
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
