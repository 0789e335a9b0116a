"""Writes to a replay, or reads from it, as classact does: a process of its own.

Says "ready" when it begins, and ends when its standard input is closed; or measures how long an
example takes from the writer to the reader, says that and ends.

Command:
    python benchmarks/replay_client.py write|read|delay JSON

with the fields of `Load`.
"""

import dataclasses
import itertools
import json
import os
import queue
import sys
import threading
import time

import numpy as np

from classact.replay import compression, dataset, records, writer
from classact.selection import race

_WRITTEN_AT_ONCE = 128
_NEXT_SECONDS = 1.0
_DELAYS = 300
_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Load:
    """What is moved.

    Attributes:
        addresses: of the servers; writers take turns over them, a reader reads all.
        table: its name.
        side: of the square colour images.
        images: "random", "icons" or "photographs".
        compression: of the writers.
        writers: threads of one process, as a run's.
        batch_size: of the reader.
    """

    addresses: list[str]
    table: str
    side: int
    images: str = "random"
    compression: str = "auto"
    writers: int = 1
    batch_size: int = 64

    @property
    def codec(self) -> records.RecordCodec:
        """Of an image with an id and a label."""
        return records.RecordCodec(
            {
                "id": np.zeros(1, np.int64),
                "image": np.zeros((1, self.side, self.side, 3), np.uint8),
                "label": np.zeros(1, np.int32),
            }
        )


def main(role: str, load: Load) -> None:
    """Does not return, but for a delay."""
    if role == "delay":
        print(json.dumps(_delays(load)))
        return
    if role == "write":
        batches = [_batch(load, seed) for seed in range(4)]
        for index in range(load.writers):
            threading.Thread(target=_write, args=(load, index, batches), daemon=True).start()
    else:
        threading.Thread(target=_read, args=(load,), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


def compressed_bytes(images: str, side: int, kind: str) -> float:
    """What a record comes to, as it is sent and kept."""
    load = Load([], "", side, images)
    rows = load.codec.pack(_batch(load, 0))
    prefix, contents = compression.Compressor(kind, rows.shape[1])(rows)
    return len(prefix) + sum(map(len, contents)) / len(contents)


def _writer(load: Load, index: int = 0) -> writer.ReplayWriter:
    address = load.addresses[index % len(load.addresses)]
    return writer.ReplayWriter(
        address, load.codec, (load.table,), threading.Event(), compression=load.compression
    )


def _write(load: Load, index: int, batches: list[dict[str, np.ndarray]]) -> None:
    clock, rng, weights = race.Clock((0.0,)), np.random.default_rng(index), np.zeros(_WRITTEN_AT_ONCE)
    out = _writer(load, index)
    for batch in itertools.cycle(batches):
        out.write(batch, lambda rows: clock.keys(weights[rows], rng), np.ones(_WRITTEN_AT_ONCE, bool))


def _read(load: Load) -> None:
    source = dataset.ReplayDataset(load.addresses, load.table, load.codec, load.batch_size, threading.Event())
    while True:
        try:
            source.next(_NEXT_SECONDS)
        except dataset.ReplayTimeoutError:
            # Before the writers begin, and after they have ended, nothing comes.
            continue


def _delays(load: Load) -> list[float]:
    """Seconds from the beginning of `write` to the end of `next`, with a reader that waits, one by one."""
    source = dataset.ReplayDataset(load.addresses, load.table, load.codec, 1, threading.Event())
    out, arrived = _writer(load), queue.SimpleQueue[float]()

    def read() -> None:
        for _ in range(_DELAYS):
            source.next(_SECONDS)
            arrived.put(time.perf_counter())

    threading.Thread(target=read, daemon=True).start()
    one = {name: array[:1] for name, array in _batch(load, 0).items()}
    found = []
    for _ in range(_DELAYS):
        began = time.perf_counter()
        out.write(one, lambda rows: np.zeros(len(rows)), np.ones(1, bool))
        found.append(arrived.get(timeout=_SECONDS) - began)
    return found


def _batch(load: Load, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "id": np.arange(_WRITTEN_AT_ONCE),
        "image": _IMAGES[load.images](load.side, rng),
        "label": np.zeros(_WRITTEN_AT_ONCE, np.int32),
        "score": np.zeros(_WRITTEN_AT_ONCE, np.float32),
        "scored_step": np.zeros(_WRITTEN_AT_ONCE, np.int64),
    }


def _random(side: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (_WRITTEN_AT_ONCE, side, side, 3), np.uint8)


def _icons(side: int, rng: np.random.Generator) -> np.ndarray:
    from classact.data import embedded_icons

    source = embedded_icons.open_icons("", "train")
    images = source.batch(rng.integers(0, source.num_examples, _WRITTEN_AT_ONCE))["image"]
    if images.shape[1] != side:
        raise ValueError(f"side={side}: the icons have {images.shape[1]}")
    return images


def _photographs(side: int, rng: np.random.Generator) -> np.ndarray:
    """Random square crops of scikit-learn's two photographs, scaled down."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    found = []
    for photograph in itertools.islice(itertools.cycle(load_sample_images().images), _WRITTEN_AT_ONCE):
        height, width = photograph.shape[:2]
        size = int(rng.integers(min(height, width) // 2, min(height, width)))
        top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
        crop = Image.fromarray(photograph[top : top + size, left : left + size])
        found.append(np.asarray(crop.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(found)


_IMAGES = {"random": _random, "icons": _icons, "photographs": _photographs}


if __name__ == "__main__":
    main(sys.argv[1], Load(**json.loads(sys.argv[2])))
