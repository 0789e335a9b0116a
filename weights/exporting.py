"""Writes a model for other tools: weights, configuration, preprocessing and a model card."""

import json
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from classact.weights.architecture import Checkpoint
from classact.weights.errors import WeightsError
from classact.weights.families import big_vision, hugging_face, open_clip_written, plain, timm
from classact.weights.families.parts import Written
from classact.weights.files import safetensors_file

FORMATS: Mapping[str, Callable[[Checkpoint], Written]] = {
    "hf": hugging_face.written,
    "open_clip": open_clip_written.written,
    "timm": timm.written,
    "big_vision": big_vision.written,
    "safetensors": plain.written,
}
CARD = "README.md"


def prepare(checkpoint: Checkpoint, kind: str, folder: pathlib.Path) -> Written:
    """Makes all that is to be written, and writes nothing.

    Args:
        checkpoint: to write.
        kind: one of `FORMATS`.
        folder: where it is to be.

    Raises:
        WeightsError: if that tool has no such model (it says what differs), a weight is not finite,
            or something is in the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder}: something is there already: name another folder, or remove it")
    found = FORMATS[kind](checkpoint)
    for name, array in found.arrays.items():
        if not np.isfinite(array).all():
            raise WeightsError(f"{checkpoint.source}: {name} is not finite: the run has diverged")
    return found


def write(found: Written, folder: pathlib.Path, card: str) -> list[pathlib.Path]:
    """Writes a model's folder; the weights last, so that a folder that has them is whole.

    Args:
        found: of `prepare`.
        folder: made if it is not there.
        card: the model card's text.

    Returns:
        The files.

    Raises:
        OSError: if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, said in found.files.items():
        text = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    (folder / CARD).write_text(card, encoding="utf-8")
    path, whole = folder / f"unfinished-{found.weights}", folder / found.weights
    if path.suffix == ".npz":
        with path.open("wb") as file:
            np.savez(file, **found.arrays)  # type: ignore[arg-type]
    else:
        safetensors_file.write(path, found.arrays, found.said)
    path.rename(whole)
    return [*written, folder / CARD, whole]
