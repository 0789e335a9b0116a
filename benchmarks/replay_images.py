"""What an image costs from its JPEG file to the learner, by what the replay carries of it.

The photographs are those that scikit-learn ships, cut at random and written as JPEG files (quality 90) into
tar shards, in two sizes: with a shorter side of 256 pixels, as data for 224×224 are often stored, and as
500×375. They are read with `augment=inception+flip` to 224×224. Each stage is measured by itself, with one
decoding thread, in milliseconds of processor time an image: what reads and decodes, what makes a record, what
writes it, the replay's server (of an insert and of a sample), what reads it, what makes an image of it again.
Their sum is of an image that is scored, where half of them are trained on; from it follow images a second of
one processor. A model's time comes on top. Also printed are the bytes that a record has on its way.

Command:
    python benchmarks/replay_images.py
"""

import argparse
import io
import pathlib
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import figures
import numpy as np
import psutil
import replay_server
from figures import Figure
from PIL import Image
from sklearn import datasets

from classact.data.augment.augmented import Augmented
from classact.data.carried.kinds import ENCODED, IDS, IMAGES, PIXELS
from classact.data.carried.opening import FromFiles, FromSource, Opener
from classact.data.carried.sealing import InEpochs, Sealer
from classact.data.decoding import pool
from classact.data.source import Batch, Source
from classact.data.specs import open_source
from classact.replay import compression, records, sample_stream, tables, writer
from classact.replay.config import EXAMPLES_TABLE, TableConfig

_SIZES = ((341, 256), (500, 375))
_SIDE = 224
_AUGMENT = "inception+flip"
SHARDS = 4
_SECONDS = 20.0


class _Stages(NamedTuple):
    """Milliseconds of processor time an image."""

    decode: float
    seal: float
    write: float
    insert: float
    sample: float
    read: float
    again: float

    @property
    def scored(self) -> float:
        """Of an image that is scored, with half of one that is trained on."""
        return self.decode + self.seal + self.write + self.insert + (self.sample + self.read + self.again) / 2


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    count, rounds = (32, 1) if options.quick else (options.images, options.rounds)
    pool.use_threads(1)
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in _SIZES:
            name = f"{size[0]}×{size[1]}"
            place = pathlib.Path(folder) / name
            write_shards(place, size, count)
            spec = f"tar:{place}/{{0..{SHARDS - 1}}}.tar?label=cls&size={_SIDE}"
            for kind in IMAGES:
                found += _of_kind(f"{name}, {kind}", spec, kind, count, rounds)
    return found


def write_shards(folder: pathlib.Path, size: tuple[int, int], count: int) -> None:
    """Writes so many JPEG files with labels 0 and 1 into `0.tar` and so on, `SHARDS` in a new folder."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in datasets.load_sample_images().images]
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as file:
            for number in range(shard, count, SHARDS):
                content = io.BytesIO()
                _cut(photographs[number % 2], size, rng).save(content, "JPEG", quality=90)
                members = (("jpg", content.getvalue()), ("cls", b"%d" % (number % 2)))
                for ending, member in members:
                    header = tarfile.TarInfo(f"{number:06d}.{ending}")
                    header.size = len(member)
                    file.addfile(header, io.BytesIO(member))


def _cut(photograph: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width = int(rng.integers(photograph.width // 2, photograph.width))
    height = min(width * size[1] // size[0], photograph.height)
    left, top = (
        int(rng.integers(side - part + 1))
        for side, part in ((photograph.width, width), (photograph.height, height))
    )
    return photograph.resize(size, Image.Resampling.LANCZOS, (left, top, left + width, top + height))


def _opened(spec: str, kind: str) -> Source:
    source = open_source(spec, "train")
    if kind == ENCODED:
        source.keep_files()
    return Augmented(source, _AUGMENT, 0)


def _opener(spec: str, kind: str) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]:
    openers: dict[str, Callable[[], Opener]] = {
        ENCODED: lambda: FromFiles("photographs", (_SIDE, _SIDE, 3), _AUGMENT, 0),
        IDS: lambda: FromSource(_opened(spec, kind)),
    }
    return openers[kind]() if kind in openers else lambda batch: batch


def _of_kind(name: str, spec: str, kind: str, count: int, rounds: int) -> list[Figure]:
    source, seal, make_images = InEpochs(_opened(spec, kind)), Sealer(kind), _opener(spec, kind)
    indices = np.arange(count)
    # The first time finds the caches cold.
    batch = _sealed(seal, source.batch(indices), kind)
    codec = records.RecordCodec({each: array for each, array in batch.items() if "score" not in each})
    config = TableConfig(batch_size=count, samples_per_insert=1.0, capacity=2 * count)
    with replay_server.serving(tables.make_tables(config, codec.num_bytes)) as served:
        spent = [_round(source, seal, kind, codec, served, make_images, indices) for _ in range(rounds + 1)][
            1:
        ]
    stages = _Stages(*np.mean(spent, axis=0).tolist())
    told = {
        "read and decode": stages.decode, "make a record": stages.seal, "write": stages.write,
        "server, insert": stages.insert, "server, sample": stages.sample, "read": stages.read,
        "images again": stages.again, "scored, half of them trained on": stages.scored,
    }  # fmt: skip
    rows = codec.pack(batch)
    prefix, contents = compression.Compressor("auto", codec.num_bytes)(rows)
    return [
        *(Figure(f"{name}: {stage}", value, "ms CPU") for stage, value in told.items()),
        Figure(f"{name}: of one processor", 1e3 / stages.scored, "images/s"),
        Figure(f"{name}: of a record on its way", sum(map(len, contents)) / count + len(prefix), "bytes"),
    ]


def _sealed(seal: Sealer, batch: Batch, kind: str) -> Batch:
    if kind == PIXELS:
        batch = {each: array for each, array in batch.items() if each != "epoch"}
    rows = len(batch["id"])
    return seal(batch) | {"score": np.zeros(rows, np.float32), "scored_step": np.zeros(rows, np.int64)}


def _round(
    source: Source,
    seal: Sealer,
    kind: str,
    codec: records.RecordCodec,
    served: replay_server.Served,
    make_images: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    indices: np.ndarray,
) -> _Stages:
    """Moves all images through the replay, once."""
    clock = _Clock(served.pid, len(indices))
    batch = source.batch(indices)
    decode, _ = clock.passed()
    batch = _sealed(seal, batch, kind)
    sealing, _ = clock.passed()
    stop = threading.Event()
    out = writer.ReplayWriter(served.address, codec, (EXAMPLES_TABLE,), stop)
    out.write(batch, lambda rows: np.zeros(len(rows)), np.ones(len(indices), bool))
    out.flush()
    writing, inserting = clock.passed()
    sampled = _read(served.address, codec, len(indices))
    reading, sampling = clock.passed()
    found = make_images(sampled)
    again, _ = clock.passed()
    order = np.argsort(found["id"])
    assert np.array_equal(found["image"][order], source.batch(indices)["image"])
    stop.set()
    out.close()
    return _Stages(decode, sealing, writing, inserting, sampling, reading, again)


def _read(address: str, codec: records.RecordCodec, count: int) -> Batch:
    """Takes so many from the table, as `dataset.ReplayDataset` does."""
    rows, filled = np.empty((count, codec.num_bytes), np.uint8), 0
    stream = sample_stream.SampleStream(address, EXAMPLES_TABLE, _SECONDS)
    while filled < count:
        for priorities in stream.take(rows[filled:]):
            filled += len(priorities)
    stream.close()
    return codec.unpack(rows)


class _Clock:
    """Processor time of this process and of the server, an image."""

    def __init__(self, server: int, count: int) -> None:
        self._server, self._count = psutil.Process(server), count
        self._before = tuple(self._now())

    def _now(self) -> Iterator[float]:
        yield time.process_time()
        server = self._server.cpu_times()
        yield server.user + server.system

    def passed(self) -> tuple[float, float]:
        """Milliseconds an image since the last call: of this process, of the server."""
        now = tuple(self._now())
        own, server = (1e3 * (b - a) / self._count for a, b in zip(self._before, now, strict=True))
        self._before = now
        return own, server


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--images", type=int, default=256, help="in the shards of each size")
    made.add_argument("--rounds", type=int, default=4, help="of which the mean is told")
    return made


if __name__ == "__main__":
    figures.run("replay_images", parser(), measure)
