"""The images that a run's policy scored highest and lowest."""

import base64
import dataclasses
import io
import os
import pathlib
import struct
import zipfile
import zlib
from typing import Optional, Union

import numpy as np
from PIL import Image

from classact.data.shown import shown
from classact.experiments.curves import RunError

FILE_NAME = "scored_images.npz"
SHOWN = 40
_LARGEST_SIDE = 96
_ARRAYS = ("image", "score", "label", "clean_label", "class_names", "caption", "corrupted")
# What NumPy raises on damaged files, and on those that claim more than there is memory.
_DAMAGE = (OSError, ValueError, EOFError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """An image as a page shows it.

    Attributes:
        url: the image as a `data:` URL, at most 96 pixels a side.
        score: ℓ_act(online) − ℓ_act(reference).
        label: its caption, or the name of the class that its label says.
        true_label: the name of its true class where that is known to be another;
            "another caption" where the caption is known to be another image's.
    """

    url: str
    score: float
    label: str
    true_label: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Extremes:
    """The highest-scored images, falling, and the lowest-scored ones, rising.

    An image is in one of the two at most.
    """

    highest: tuple[ScoredImage, ...]
    lowest: tuple[ScoredImage, ...]


def load_extremes(run_dir: Union[str, "os.PathLike[str]"], shown: int = SHOWN) -> Optional[Extremes]:
    """Reads `scored_images.npz` of a run directory.

    It holds `image: uint8[N, H, W, C]` (C of 1, 3 or 4), `score: float32[N]`,
    `caption: str[N]` with, optionally, `corrupted: bool[N]`, or `label: int32[N]`
    with, optionally, `clean_label: int32[N]` and `class_names: str[K]`. Images
    without a finite score are left out.

    Args:
        run_dir: the run directory.
        shown: how many of each to return, at most.

    Returns:
        The images, or None if the run has no such file.

    Raises:
        RunError: if the file is damaged or lacks something; it is named.
    """
    path = pathlib.Path(run_dir) / FILE_NAME
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS if name in file.files}
    except _DAMAGE as error:
        raise RunError(f"{path} is damaged: {error}") from error
    _check(path, arrays)
    order = np.argsort(arrays["score"], kind="stable")
    order = order[np.isfinite(arrays["score"][order])]
    half = min(shown, (len(order) + 1) // 2)
    highest, lowest = order[::-1][:half], order[: min(half, len(order) - half)]
    return Extremes(
        tuple(_scored_image(arrays, i) for i in highest), tuple(_scored_image(arrays, i) for i in lowest)
    )


def _check(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises a RunError unless the arrays are there and fit each other."""
    for name in ("image", "score", "label" if "caption" not in arrays else "caption"):
        if name not in arrays:
            raise RunError(f"{path} has no array {name!r}")
    image = arrays["image"]
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] not in (1, 3, 4):
        raise RunError(
            f"{path}: image is {image.dtype}{list(image.shape)}, expected uint8[N, H, W, 1, 3 or 4]"
        )
    for name in ("score", "label", "clean_label", "caption", "corrupted"):
        if name in arrays and arrays[name].shape != image.shape[:1]:
            raise RunError(f"{path}: {name} has shape {arrays[name].shape}, expected ({len(image)},)")


def _scored_image(arrays: dict[str, np.ndarray], index: int) -> ScoredImage:
    """Returns one of the images with its names."""
    url, score = data_url(arrays["image"][index]), float(arrays["score"][index])
    if "caption" in arrays:
        corrupted = "corrupted" in arrays and bool(arrays["corrupted"][index])
        return ScoredImage(
            url, score, str(arrays["caption"][index]), "another caption" if corrupted else None
        )
    label = int(arrays["label"][index])
    clean = int(arrays["clean_label"][index]) if "clean_label" in arrays else label
    true_label = None if clean == label else _class_name(arrays, clean)
    return ScoredImage(url, score, _class_name(arrays, label), true_label)


def _class_name(arrays: dict[str, np.ndarray], label: int) -> str:
    """Returns a class's name, or its number if it has none."""
    names = arrays.get("class_names", ())
    return shown(str(names[label])) if 0 <= label < len(names) else f"class {label}"


def data_url(image: np.ndarray) -> str:
    """Encodes an image, uint8[H, W, C] with C of 1, 3 or 4, as a PNG in a URL, at most 96 pixels a side."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
