"""The learner's reading of the replay without a learner: images/s, and CPU by process and stage.

Tables of made-up records (random bytes, which no compression changes) are filled, then emptied as fast
as it goes; this process reads, each shard is a server process. By stage:

- draw: requests, and records from the socket into a batch's memory (`SampleStream`), by 1, 2 and 4
  threads on 1, 2 and 4 shards; a thread has a connection to each of its shards;
- unpack: a batch's fields as arrays; place: from there to the device (`nodes.batches.to_device`), and the
  same from packed records, in which the images are not one array;
- all of it: `ReplayDataset`, a thread a shard, with 1, 2 and 4 batches read ahead, into `to_device`;
- for comparison what the draw costs by grpcio: its messages alone, and parsed by protobuf and copied.

Images/s are those of all processors together, so on a machine that does something else look at the CPU.
A server's CPU is known to 10 ms. Each figure is the median of the rounds.

Command:
    python benchmarks/reading.py
    python benchmarks/reading.py --parts dataset --bytes 150K --shards 2 --read-ahead 4
"""

import argparse
import collections
import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import figures
import grpc.experimental
import numpy as np
import psutil
import replay_server
from figures import Figure

from classact.nodes import batches
from classact.replay import channel, compression, dataset, protocol, records, sample_stream, tables, writer

_SIDES = {"150K": 224, "3K": 32}
# Of all shards together: 0.6 GB and 0.1 GB.
_IMAGES = {"150K": 4096, "3K": 32768}
_BATCH = 256
_WRITTEN_AT_ONCE = 128
_MOST_AHEAD = 6
_TABLE = "examples"
_SECONDS = 20.0
# What the learner read when this was written, by one thread with grpcio, on two busy cores (BUILD_NOTES.md).
_GOAL = 3 * 2300.0


class _Cost(NamedTuple):
    """Of one reading: images/s, and CPU-seconds an image of this process and of the servers."""

    rate: float
    reading: float
    serving: float


class _Shards:
    """Servers whose tables can be filled again."""

    def __init__(self, size: str, number: int, images: int, opened: contextlib.ExitStack) -> None:
        side = _SIDES[size]
        self.images = images
        self.codec = records.RecordCodec(
            {
                "id": np.zeros(1, np.int64),
                "image": np.zeros((1, side, side, 3), np.uint8),
                "label": np.zeros(1, np.int32),
            }
        )
        # A reader that is closed may have asked for what is written afterwards: there is always more.
        self._spare = number * _MOST_AHEAD * _BATCH
        table = tables.Table(_TABLE, self.codec.num_bytes, True, images + self._spare, 1.0, 1, 1e12)
        self._served = [opened.enter_context(replay_server.serving([table])) for _ in range(number)]
        self.addresses = [served.address for served in self._served]

    def fill(self) -> None:
        """Writes at least as many images as are read, in equal parts."""
        rng = np.random.default_rng(0)
        batch = {name: np.zeros(_WRITTEN_AT_ONCE, kind) for name, kind in records.SCORE_FIELDS}
        for name, array in self.codec.unpack(self.codec.empty(_WRITTEN_AT_ONCE)).items():
            batch.setdefault(name, rng.integers(0, 100, array.shape).astype(array.dtype))
        for address in self.addresses:
            out = writer.ReplayWriter(address, self.codec, (_TABLE,), threading.Event())
            for _ in range((self.images + self._spare) // len(self.addresses) // _WRITTEN_AT_ONCE):
                out.write(batch, lambda rows: rng.random(len(rows)), np.ones(_WRITTEN_AT_ONCE, bool))
            out.flush()
            out.close()

    def cost(self, read: Callable[[], int]) -> _Cost:
        """Fills the tables, and measures what reads so many images."""
        self.fill()
        began, own, servers = time.perf_counter(), time.process_time(), self._cpu()
        images = read()
        passed = time.perf_counter() - began
        return _Cost(images / passed, (time.process_time() - own) / images, (self._cpu() - servers) / images)

    def _cpu(self) -> float:
        return sum(sum(psutil.Process(served.pid).cpu_times()[:2]) for served in self._served)


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    parts = {"draw": _draws, "stages": _stages, "dataset": _datasets, "grpcio": _grpcio}
    return [
        figure
        for size in options.bytes
        for name in options.parts
        for figure in parts[name](size, _IMAGES[size] // (8 if options.quick else 1), options)
    ]


def _median(
    shards: _Shards, rounds: int, readings: Sequence[tuple[str, Callable[[], int]]]
) -> Iterator[tuple[str, _Cost]]:
    """The costs of several ways to read, in turns, after one round that nobody counts."""
    found: dict[str, list[_Cost]] = collections.defaultdict(list)
    for number in range(rounds + 1):
        for name, read in readings:
            cost = shards.cost(read)
            if number:
                found[name].append(cost)
    for name, costs in found.items():
        yield name, _Cost(*map(statistics.median, zip(*costs, strict=True)))


def _of(name: str, cost: _Cost, at_least: float | None = None) -> list[Figure]:
    return [
        Figure(name, cost.rate, "images/s", at_least=at_least),
        Figure("  CPU, reading", 1e6 * cost.reading, "µs/image"),
        Figure("  CPU, servers", 1e6 * cost.serving, "µs/image"),
    ]


def _draws(size: str, images: int, options: argparse.Namespace) -> list[Figure]:
    found = []
    for number in options.shards:
        with contextlib.ExitStack() as opened:
            shards = _Shards(size, number, images, opened)
            streams = {threads: _Streams(shards, threads, opened) for threads in options.threads}
            readings = [(f"threads: {threads}", each.empty) for threads, each in streams.items()]
            for name, cost in _median(shards, options.rounds, readings):
                found += _of(f"draw, {size}, shards: {number}, {name}", cost)
    return found


class _Streams:
    """Threads that empty tables, each in batches of its own."""

    def __init__(self, shards: _Shards, threads: int, opened: contextlib.ExitStack) -> None:
        self._each: list[list[sample_stream.SampleStream]] = [[] for _ in range(threads)]
        for index in range(max(threads, len(shards.addresses))):
            address = shards.addresses[index % len(shards.addresses)]
            stream = sample_stream.SampleStream(address, _TABLE, _SECONDS)
            opened.callback(stream.close)
            self._each[index % threads].append(stream)
        self._batches = shards.images // _BATCH // sum(map(len, self._each))
        self._rows = [shards.codec.empty(_BATCH) for _ in self._each]

    def empty(self) -> int:
        """Reads all; returns how many images."""
        threads = [
            threading.Thread(target=self._read, args=pair)
            for pair in zip(self._each, self._rows, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._batches * _BATCH * sum(map(len, self._each))

    def _read(self, streams: Sequence[sample_stream.SampleStream], rows: records.Records) -> None:
        for _, stream in itertools.product(range(self._batches), streams):
            collections.deque(stream.take(rows), maxlen=0)


def _datasets(size: str, images: int, options: argparse.Namespace) -> list[Figure]:
    found = []
    for number in options.shards:
        with contextlib.ExitStack() as opened:
            shards = _Shards(size, number, images, opened)

            def read(ahead: int, shards: _Shards = shards) -> int:
                stop = threading.Event()
                source = dataset.ReplayDataset(
                    shards.addresses,
                    _TABLE,
                    shards.codec,
                    _BATCH,
                    stop,
                    batches.to_device,
                    read_ahead=ahead,
                )
                for _ in range(shards.images // _BATCH):
                    for array in source.next(_SECONDS).batch.values():
                        array.block_until_ready()
                stop.set()
                source.close()
                return shards.images

            readings = [
                (f"batches ahead: {ahead}", lambda ahead=ahead: read(ahead)) for ahead in options.read_ahead
            ]
            for name, cost in _median(shards, options.rounds, readings):
                goal = _GOAL if size == "150K" else None
                found += _of(f"data set, {size}, shards: {number}, {name}", cost, goal)
    return found


def _stages(size: str, images: int, options: argparse.Namespace) -> list[Figure]:
    """What comes after the draw, in one thread, of records that lie there."""
    del images
    side = _SIDES[size]
    codec = records.RecordCodec(
        {"id": np.zeros(1, np.int64), "image": np.zeros((1, side, side, 3), np.uint8)}
    )
    rows = codec.empty(_BATCH)
    rows.largest[:], rows.others[:] = 1, 1
    packed = rows.packed()

    def place(which: Any) -> None:
        batches.to_device(codec.unpack(which)).batch["image"].block_until_ready()

    work: dict[str, Callable[[], object]] = {
        "unpack": lambda: codec.unpack(rows),
        "unpack and place": lambda: place(rows),
        "unpack and place, packed records": lambda: place(packed),
    }
    return [
        Figure(f"{name}, {size}", 1e6 * _cpu_each(each, options.rounds), "µs/image")
        for name, each in work.items()
    ]


def _cpu_each(work: Callable[[], object], rounds: int) -> float:
    """CPU-seconds an image, the median of rounds, after one that nobody counts."""
    found = []
    for _ in range(rounds + 1):
        began = time.process_time()
        for _ in range(20):
            work()
        found.append((time.process_time() - began) / 20 / _BATCH)
    return statistics.median(found[1:])


def _grpcio(size: str, images: int, options: argparse.Namespace) -> list[Figure]:
    response = protocol._classes()["SampleResponse"]  # Nothing else needs it whole.
    with contextlib.ExitStack() as opened:
        shards = _Shards(size, 1, images, opened)
        request = protocol.SampleRequest(table=_TABLE, num_samples=_BATCH)
        request.limiter_timeout.milliseconds = round(1000 * _SECONDS)
        alone = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]
        connection = opened.enter_context(channel.connect(shards.addresses[0], alone))
        ask = connection.unary_stream(
            protocol.SERVICE + "SampleStream", protocol.SampleRequest.SerializeToString
        )
        rows = np.empty((_BATCH, shards.codec.num_bytes), np.uint8)

        def messages() -> int:
            for _ in range(images // _BATCH):
                collections.deque(ask(request), maxlen=0)
            return images

        def parsed() -> int:
            for _ in range(images // _BATCH):
                row = iter(rows)
                for message in ask(request):
                    for entry in response.FromString(message).entries:
                        compression.read_into(entry.chunks[0].data.tensors[0].content, next(row))
            return images

        readings = [("messages alone", messages), ("parsed and copied", parsed)]
        return [
            figure
            for name, cost in _median(shards, options.rounds, readings)
            for figure in _of(f"grpcio, {size}, {name}", cost)
        ]


def parser() -> argparse.ArgumentParser:
    """The options of this benchmark alone."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("draw", "stages", "dataset", "grpcio")
    made.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what to measure")
    made.add_argument("--bytes", nargs="+", choices=tuple(_SIDES), default=tuple(_SIDES), help="of a record")
    made.add_argument("--shards", nargs="+", type=int, default=(1, 2, 4), help="server processes")
    made.add_argument("--threads", nargs="+", type=int, default=(1, 2, 4), help="of the draw alone")
    made.add_argument("--read-ahead", nargs="+", type=int, default=(1, 2, 4), help="batches, of the data set")
    made.add_argument("--rounds", type=int, default=3, help="of each figure")
    return made


if __name__ == "__main__":
    figures.run("reading", parser(), measure)
