"""Opens a file of arrays by its name, or finds it in a folder."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from classact.weights.errors import WeightsError
from classact.weights.files import safetensors_file
from classact.weights.files.npz_file import NpzFile
from classact.weights.files.tensors import TensorFile
from classact.weights.files.torch_zip import TorchFile

_ACCEPTED = ".safetensors, .safetensors.index.json, .npz, .pt, .pth or .bin"


def opened(path: pathlib.Path) -> TensorFile:
    """Opens a file; it reads names and shapes only.

    Raises:
        WeightsError: if it is missing, damaged, or of none of the formats.
    """
    if path.name.endswith(".safetensors.index.json"):
        return safetensors_file.sharded(path)
    if path.suffix == ".safetensors":
        return safetensors_file.SafetensorsFile(str(path), [path])
    if path.suffix == ".npz":
        return NpzFile(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        return TorchFile(path)
    if path.suffix in (".pkl", ".pickle"):
        raise WeightsError(f"{path}: pickles are not read, they can run anything: expected {_ACCEPTED}")
    raise WeightsError(f"{path}: expected {_ACCEPTED}")


def in_folder(folder: pathlib.Path, names: Sequence[str]) -> TensorFile:
    """Opens the first file of these names that a folder has; a path to a file is that file.

    Raises:
        WeightsError: as `opened`, or if there is none.
    """
    if folder.is_file():
        return opened(folder)
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such file or folder")
    for name in names:
        if (folder / name).exists():
            return opened(folder / name)
    raise WeightsError(f"{folder}: none of {', '.join(names)} is in it")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads an object of JSON.

    Raises:
        WeightsError: if it is missing or damaged, or something else.
    """
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: expected an object of JSON")
    return found
