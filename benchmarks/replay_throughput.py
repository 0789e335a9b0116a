"""Replay insert and sample, in items per second and CPU, side by side with Reverb's own C++ client.

One process writes, another holds the server, and a third takes what the rate
limiter gives it: every second item, with the demo's filter ratio. Two pairs of
writer and reader move records of 3 KB (32 × 32) and of 150 KB (224 × 224), in turns:

- classact: `ReplayWriter` and `ReplayDataset`, packing, priorities and unpacking included;
- C++: Reverb's own writer and data set for records that lie packed already
  (`reverb_client.py`), under the server's Python.

Then the delay from the beginning of an insertion to the reader, one example at a time; what
compression costs and saves on icons, photographs and random bytes; and the first pair with 1, 2 and
4 shards, each a server process: four writers in one process, spread over the shards, and one
reader of all. The batch, 256, and the capacity are of all shards together, as in a run, so
only the number of servers differs.

The counts are the servers' own, so what is still under way does not count.

Command:
    python benchmarks/replay_throughput.py
"""

import argparse
import collections
import contextlib
import itertools
import json
import pathlib
import statistics
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

import figures
import numpy as np
import psutil
import replay_client
import replay_server
from figures import Figure

from classact import environments
from classact.replay import server_calls, tables

_OURS, _THEIRS = "classact", "C++"
_SIDES = {"3 KB": 32, "150 KB": 224}
_WRITERS = (1, 4)
_BATCH, _CAPACITY = 64, 1024
_SHARDS = (1, 2, 4)
_ALL_SHARDS = 256, 2048
_SHARD_WRITERS = 4
_TARGET = 0.8
_COMPRESSED = (("icons", 32), ("photographs", 32), ("photographs", 224), ("random", 32), ("random", 224))
_TABLE = "examples"
_START_SECONDS = 60.0
_DELAY_SECONDS = 300.0


class _Rate(NamedTuple):
    """What was done at once: items/s, and CPU-seconds of each side per inserted item."""

    inserted: float
    sampled: float
    writing: float
    serving: float
    reading: float


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    seconds, rounds = (1.0, 1) if options.quick else (options.seconds, options.rounds)
    parts = {
        "clients": lambda: _clients(seconds, rounds),
        "delays": _delays,
        "compression": lambda: _compression(seconds, rounds),
        "shards": lambda: _shards(seconds, rounds),
    }
    return [figure for name in options.parts or parts for figure in parts[name]()]


def _table(side: int, batch_size: int = _BATCH, capacity: int = _CAPACITY) -> tables.Table:
    """As `make_tables` makes it for a filter ratio of a half."""
    size = replay_client.Load([], _TABLE, side).codec.num_bytes
    return tables.Table(_TABLE, size, True, capacity, 0.5, capacity // 2, 2.0 * batch_size)


def _clients(seconds: float, rounds: int) -> list[Figure]:
    rates: dict[tuple[str, int, str], list[_Rate]] = collections.defaultdict(list)
    for _, size, writers, kind in itertools.product(range(rounds), _SIDES, _WRITERS, (_OURS, _THEIRS)):
        with replay_server.serving([_table(_SIDES[size])]) as served:
            load = replay_client.Load([served.address], _TABLE, _SIDES[size], writers=writers)
            command = replay_server.client if kind == _OURS else _their_command
            found = _rate([served], command("read", load), command("write", load), seconds)
            rates[size, writers, kind].append(found)
    found_figures = []
    for size, writers in itertools.product(_SIDES, _WRITERS):
        ours, theirs = (_median(rates[size, writers, kind]) for kind in (_OURS, _THEIRS))
        name = f"replay, {size}, writers: {writers}"
        found_figures += [
            Figure(f"{name}: inserts, classact / C++", ours.inserted / theirs.inserted, "", at_least=_TARGET),
            Figure("  samples, classact / C++", ours.sampled / theirs.sampled, "", at_least=_TARGET),
            *_of_rate(_OURS, ours),
            *_of_rate(_THEIRS, theirs),
        ]
    return found_figures


def _their_command(role: str, load: replay_client.Load) -> list[str]:
    number = load.writers if role == "write" else 1 if role == "delay" else load.batch_size
    script = pathlib.Path(replay_client.__file__).with_name("reverb_client.py")
    python = environments.replay_python()
    size = str(load.codec.num_bytes)
    return [str(python), "-I", str(script), role, load.addresses[0], load.table, size, str(number)]


def _of_rate(name: str, rate: _Rate) -> list[Figure]:
    return [
        Figure(f"  {name}: inserted", rate.inserted, "items/s"),
        Figure(f"  {name}: sampled", rate.sampled, "items/s"),
        Figure(f"  {name}: CPU of the writer", 1e6 * rate.writing, "us/insert"),
        Figure(f"  {name}: CPU of the server", 1e6 * rate.serving, "us/insert"),
        Figure(f"  {name}: CPU of the reader", 1e6 * rate.reading, "us/insert"),
    ]


def _delays() -> list[Figure]:
    """From a writer to a reader that waits, with nothing else under way."""
    found = []
    for size, kind in itertools.product(_SIDES, (_OURS, _THEIRS)):
        record_bytes = replay_client.Load([], _TABLE, _SIDES[size]).codec.num_bytes
        queue = tables.Table(_TABLE, record_bytes, False, 64, 1.0, 1, 4.0)
        with replay_server.serving([queue]) as served:
            load = replay_client.Load([served.address], _TABLE, _SIDES[size])
            command = replay_server.client if kind == _OURS else _their_command
            done = subprocess.run(
                command("delay", load), stdout=subprocess.PIPE, check=True, timeout=_DELAY_SECONDS
            )
        delays = 1e3 * np.array(json.loads(done.stdout))
        name = f"replay, {size}, {kind}: from the writer to the reader"
        found += [
            Figure(f"{name}, median", float(np.median(delays)), "ms"),
            Figure(f"{name}, 99th percentile", float(np.percentile(delays, 99)), "ms"),
        ]
    return found


def _compression(seconds: float, rounds: int) -> list[Figure]:
    """CPU with and without, and what a record comes to."""
    rates: dict[tuple[str, int, str], list[_Rate]] = collections.defaultdict(list)
    kinds = ("none", "snappy")
    for _, (images, side), kind in itertools.product(range(rounds), _COMPRESSED, kinds):
        with replay_server.serving([_table(side)]) as served:
            load = replay_client.Load([served.address], _TABLE, side, images=images, compression=kind)
            sides = replay_server.client("read", load), replay_server.client("write", load)
            rates[images, side, kind].append(_rate([served], *sides, seconds))
    found = []
    for (images, side), kind in itertools.product(_COMPRESSED, kinds):
        bytes_of_record = replay_client.compressed_bytes(images, side, kind)
        found += [
            Figure(f"replay, {images} of {side}², {kind}: a record", bytes_of_record, "bytes"),
            *_of_rate(kind, _median(rates[images, side, kind])),
        ]
    return found


def _shards(seconds: float, rounds: int) -> list[Figure]:
    """Throughput and CPU by the number of shards, in turns."""
    batch_size, capacity = _ALL_SHARDS
    rates: dict[tuple[str, int], list[_Rate]] = collections.defaultdict(list)
    for _, size, shards in itertools.product(range(rounds), _SIDES, _SHARDS):
        table = _table(_SIDES[size], batch_size // shards, capacity // shards)
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(replay_server.serving([table])) for _ in range(shards)]
            load = replay_client.Load(
                [served.address for served in servers],
                _TABLE,
                _SIDES[size],
                writers=_SHARD_WRITERS,
                batch_size=batch_size,
            )
            sides = replay_server.client("read", load), replay_server.client("write", load)
            rates[size, shards].append(_rate(servers, *sides, seconds))
    found = []
    for size, shards in itertools.product(_SIDES, _SHARDS):
        found += _of_rate(f"replay, {size}, shards: {shards}", _median(rates[size, shards]))
    return found


def _median(rates: Sequence[_Rate]) -> _Rate:
    return _Rate(*map(statistics.median, zip(*rates, strict=True)))


def _rate(
    servers: Sequence[replay_server.Served], reader: list[str], writer: list[str], seconds: float
) -> _Rate:
    """Looks at the servers' counts and at all processes' CPU before and after a window."""
    calls = [server_calls.ServerCalls(served.address) for served in servers]

    def cpu(*pids: int) -> float:
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return sum(spent.user + spent.system for spent in times)

    with replay_server.running(reader) as reads, replay_server.running(writer) as writes:

        def look() -> np.ndarray:
            limiters = [each.tables()[_TABLE].limiter for each in calls]
            inserted = sum(limiter.inserts.completed for limiter in limiters)
            sampled = sum(limiter.samples.completed for limiter in limiters)
            serving = cpu(*(served.pid for served in servers))
            return np.array([time.monotonic(), inserted, sampled, cpu(writes), serving, cpu(reads)])

        # To get under way: a table must be half full, and clients connect.
        until = time.monotonic() + _START_SECONDS
        while look()[2] < 1000 and time.monotonic() < until:
            time.sleep(0.1)
        before = look()
        time.sleep(seconds)
        elapsed, inserted, sampled, *spent = (look() - before).tolist()
    for each in calls:
        each.close()
    return _Rate(inserted / elapsed, sampled / elapsed, *(seconds / inserted for seconds in spent))


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=float, default=5.0, help="length of a window")
    made.add_argument("--rounds", type=int, default=3, help="windows of each kind, taken in turns")
    made.add_argument(
        "--parts", nargs="*", choices=("clients", "delays", "compression", "shards"), help="default: all"
    )
    return made


if __name__ == "__main__":
    figures.run("replay_throughput", parser(), measure)
