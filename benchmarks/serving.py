"""What a trainer's batches cost on their way from a selector: batches/s, and CPU of either side.

Command:
    python benchmarks/serving.py [--quick] [--workdir=runs/bench]

A shelf and its server in this process, a client in another, on one machine; sub-batches of 64 images,
as pixels of 3 KB and of 150 KB, over loopback with keys and over a Unix socket, each on the disk first.
Beside it what reading and decoding as many JPEG files takes, with Pillow, as a data loader of the trainer's
own would have to. CPU seconds: wall-clock on a machine that does something else says little.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import figures
import numpy as np
from figures import Figure
from PIL import Image

from classact.nodes.serving import server as server_lib
from classact.nodes.serving import shelf as shelf_lib

_BATCH = 64
_SIDES = {"3 KB": 32, "150 KB": 224}
_CLIENT = """
import json, sys, time
from classact import client
with client.connect(sys.argv[1], patience=60) as selection:
    batches = selection.batches()
    next(batches)
    started, spent = time.perf_counter(), time.process_time()
    for _ in range(int(sys.argv[2])):
        next(batches)
    print(json.dumps([time.perf_counter() - started, time.process_time() - spent]))
"""


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures both sizes, both ways, and the decoding."""
    found = []
    for name, side in _SIDES.items():
        number = (20 if options.quick else 200) // (1 if side < 100 else 4)
        for way in ("tcp", "unix"):
            with tempfile.TemporaryDirectory(dir=options.workdir) as folder:
                seconds, client, server = _served(Path(folder), way, side, number)
            found += [
                Figure(f"{name}, {way}: batches/s", number / seconds, "batches/s"),
                Figure(f"{name}, {way}: CPU of the client", 1000 * client / number, "ms/batch"),
                Figure(f"{name}, {way}: CPU of the selector", 1000 * server / number, "ms/batch"),
            ]
        found.append(Figure(f"{name}: CPU of decoding", 1000 * _decoding(side, options.workdir), "ms/batch"))
    return found


def _served(folder: Path, way: str, side: int, number: int) -> tuple[float, float, float]:
    """Seconds of wall-clock, of the client's CPU and of this process' for so many sub-batches."""
    stop = threading.Event()
    shelf = shelf_lib.Shelf(folder / "serve", 4, 0, stop)
    listen = "127.0.0.1:0" if way == "tcp" else f"unix:{folder}/socket"
    about = {"data_sets": ["data"], "images": "pixels", "task": "classification"}
    server = server_lib.Server(shelf, listen, folder, about, server_lib.Reports())
    server.start()
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, side, side, 3), np.uint8)
    sub_batch = {"data/id": np.arange(_BATCH), "data/label": np.zeros(_BATCH, np.int32), "data/image": images}

    def hand_on() -> None:
        while shelf.wait_for_room():
            shelf.put(sub_batch)

    threading.Thread(target=hand_on, daemon=True).start()
    before = time.process_time()
    command = [sys.executable, "-c", _CLIENT, str(folder), str(number)]
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    finally:
        spent = time.process_time() - before
        stop.set()
        server.stop()
    seconds, client = json.loads(told)
    return seconds, client, spent


def _decoding(side: int, workdir: Path) -> float:
    """CPU seconds of reading and decoding a batch of JPEG files of one image's size."""
    pixels = np.random.default_rng(0).normal(128, 30, (side // 8, side // 8, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(file, "JPEG", quality=90)
    with tempfile.NamedTemporaryFile(suffix=".jpg", dir=workdir) as on_disk:
        on_disk.write(file.getvalue())
        on_disk.flush()
        started = time.process_time()
        for _ in range(4 * _BATCH):
            np.asarray(Image.open(on_disk.name).convert("RGB"))
        return (time.process_time() - started) / 4


if __name__ == "__main__":
    figures.run("serving", argparse.ArgumentParser(description=__doc__.splitlines()[0]), measure)
