"""What a photograph costs from its JPEG file to the pixels of a run, and how it grows with threads.

The photographs are those that scikit-learn ships, made anew as JPEG files (quality 90) of 500×375 and
2,000×1,500 pixels, and decoded to 224×224: the middle square, and a random part as `inception` takes it.
Printed are milliseconds of processor time an image, the median of rounds in which each decoder takes its
turn; how far the pixels are from a full decoding with Pillow's bicubic filter, in grey levels (mean and
99th percentile, of the worse photograph); and examples a second of `data.image_files` by threads, which
on a machine that does other things too is less than it can be.

OpenCV's rows (decoding in full, then its area filter) need `pip install opencv-python-headless`.

Command:
    python benchmarks/decoding.py
"""

import argparse
import functools
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import figures
import numpy as np
from figures import Figure
from PIL import Image, ImageOps
from sklearn import datasets

from classact.data.augment.recipe import Recipe
from classact.data.decode import read_pixels
from classact.data.decoding import pool
from classact.data.image_files import ImageFiles
from classact.data.left_out import LeftOut

try:
    import cv2
except ImportError:
    cv2 = None

_SIDE = 224
_SIZES = ((500, 375), (2000, 1500))
_MOST_OF_OPENCV = 0.7
# How often a decoder takes each photograph in its turn.
_TURN = 4
_BICUBIC = Image.Resampling.BICUBIC


class _Photograph:
    """A file in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, mode: Any) -> io.BytesIO:
        del mode
        return io.BytesIO(self.content)


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    found: list[Figure] = []
    for size in _SIZES:
        files = [_photograph(number, size) for number in range(2)]
        rounds = 5 if options.quick else max(10, options.rounds * 375 // size[1])
        found += _decoders(files, f"{size[0]}×{size[1]}", rounds)
        found += _by_threads(files, f"{size[0]}×{size[1]}", 0.2 if options.quick else options.seconds)
    return found


def _photograph(number: int, size: tuple[int, int]) -> _Photograph:
    image = Image.fromarray(datasets.load_sample_images().images[number])
    content = io.BytesIO()
    ImageOps.fit(image, size, Image.Resampling.LANCZOS).save(content, "JPEG", quality=90)
    return _Photograph(content.getvalue())


def _decoders(files: list[_Photograph], name: str, rounds: int) -> list[Figure]:
    decoders: dict[str, Callable[[_Photograph], np.ndarray]] = {
        "classact": lambda file: read_pixels(file, "RGB", _SIDE),
        "classact, inception": _InceptionCrops(),
        "Pillow, reduced by `draft`": functools.partial(_by_pillow, draft=True),
        "Pillow, in full": functools.partial(_by_pillow, draft=False),
    }
    if cv2 is not None:
        cv2.setNumThreads(1)
        decoders["OpenCV, area"] = _by_opencv
    spent: dict[str, list[float]] = {decoder: [] for decoder in decoders}
    for _ in range(rounds):
        for decoder, decode in decoders.items():
            # As in a run, where one image follows the other: the first one finds the caches cold.
            decode(files[0])
            began = time.thread_time()
            for file in files * _TURN:
                decode(file)
            spent[decoder].append((time.thread_time() - began) / (_TURN * len(files)))
    found = []
    for decoder, decode in decoders.items():
        found.append(Figure(f"{name}, {decoder}", 1e3 * statistics.median(spent[decoder]), "ms CPU"))
        if decoder not in ("classact, inception", "Pillow, in full"):
            means, highest = zip(*(_difference(decode(file), file) for file in files), strict=True)
            found.append(Figure(f"{name}, {decoder}: off by, mean", max(means), "levels"))
            found.append(Figure(f"{name}, {decoder}: off by, 99 %", max(highest), "levels"))
    if cv2 is not None:
        ratio = statistics.median(spent["classact"]) / statistics.median(spent["OpenCV, area"])
        found.append(Figure(f"{name}, classact / OpenCV", ratio, at_most=_MOST_OF_OPENCV))
    return found


class _InceptionCrops:
    """Another part of the photograph at each call."""

    def __init__(self) -> None:
        self._recipe = Recipe("inception", flip=True)
        self._calls = 0

    def __call__(self, file: _Photograph) -> np.ndarray:
        self._calls += 1
        (numbers,) = self._recipe.numbers(0, 0, np.array([self._calls]))
        return read_pixels(
            file,
            "RGB",
            None,
            lambda width, height: self._recipe.frame(numbers, width, height, (_SIDE, _SIDE)),
        )


def _by_pillow(file: _Photograph, draft: bool) -> np.ndarray:
    with Image.open(file.open("rb")) as image:
        if draft:
            image.draft(None, (_SIDE, _SIDE))
        return np.asarray(ImageOps.fit(image.convert("RGB"), (_SIDE, _SIDE), _BICUBIC))


def _by_opencv(file: _Photograph) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(file.content, np.uint8), cv2.IMREAD_COLOR_RGB)
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = pixels[top : top + side, left : left + side]
    return cv2.resize(middle, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _difference(pixels: np.ndarray, file: _Photograph) -> tuple[float, float]:
    """From a full decoding with Pillow's filter: the mean, and what 1 % is above."""
    found = np.abs(pixels.astype(float) - _by_pillow(file, draft=False))
    return float(found.mean()), float(np.percentile(found, 99))


def _by_threads(files: list[_Photograph], name: str, seconds: float) -> list[Figure]:
    images = ImageFiles("photographs", files * 64, _SIDE, 3, "", LeftOut())
    numbers = np.arange(2 * 64)
    found = []
    counts = sorted({1, 2, 4, pool.cpus()})
    for threads in (count for count in counts if count <= 2 * pool.cpus()):
        pool.use_threads(threads)
        images.read(numbers)
        began, spent, batches = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            images.read(numbers)
            batches += 1
        rate = batches * len(numbers) / (time.perf_counter() - began)
        cost = (time.process_time() - spent) / (batches * len(numbers))
        found.append(Figure(f"{name}, {threads} threads", rate, "images/s"))
        found.append(Figure(f"{name}, {threads} threads: an image", 1e3 * cost, "ms CPU"))
    pool.use_threads(0)
    return found


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=60, help="of all decoders, with small photographs")
    made.add_argument("--seconds", type=float, default=4.0, help="for each number of threads")
    return made


if __name__ == "__main__":
    figures.run("decoding", parser(), measure)
