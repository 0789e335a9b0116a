"""Safetensors, in one file or in shards with an index."""

import json
import pathlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from classact.weights.errors import WeightsError
from classact.weights.files.tensors import Tensor

# By safetensors' names; numpy has no bfloat16 of its own.
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class SafetensorsFile:
    """The arrays of one file or several."""

    def __init__(self, label: str, paths: list[pathlib.Path]) -> None:
        """Reads the headers.

        Args:
            label: for messages.
            paths: of the files.

        Raises:
            WeightsError: if one is missing or damaged, or two hold the same name.
        """
        self.label = label
        self.tensors: dict[str, Tensor] = {}
        self._places: dict[str, pathlib.Path] = {}
        for path in paths:
            for name, tensor in _header(path).items():
                if name in self.tensors:
                    raise WeightsError(f"{label}: {name} is in {self._places[name].name} and in {path.name}")
                self.tensors[name] = tensor
                self._places[name] = path

    def read(self, name: str) -> np.ndarray:
        """See `TensorFile.read`."""
        path = self._places[name]
        try:
            if self.tensors[name].dtype == "bfloat16":
                return _bfloat16(path, name).astype(np.float32)
            with safetensors.safe_open(path, "numpy") as file:
                return np.asarray(file.get_tensor(name), np.float32)
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsError(f"{path}: {name} cannot be read: {error}") from None


def metadata(path: pathlib.Path) -> Mapping[str, str]:
    """The texts that a file's header holds beside the arrays' names."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: {error}") from None


def _header(path: pathlib.Path) -> dict[str, Tensor]:
    found = {}
    try:
        with safetensors.safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping.
                part = file.get_slice(name)
                dtype = str(part.get_dtype())
                found[name] = Tensor(tuple(part.get_shape()), _DTYPES.get(dtype, dtype))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    # Truncated, its header says so.
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: truncated, damaged or no safetensors file: {error}") from None
    return found


def _bfloat16(path: pathlib.Path, name: str) -> np.ndarray:
    """An array by its place in the file: the library reads bfloat16 only for other libraries than numpy.

    The header has been checked against the file's length.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        said = json.loads(file.read(length))[name]
        begin, end = said["data_offsets"]
        file.seek(8 + length + begin)
        return np.frombuffer(file.read(end - begin), ml_dtypes.bfloat16).reshape(said["shape"])


def sharded(index: pathlib.Path) -> SafetensorsFile:
    """Opens shards by their index, `….safetensors.index.json`.

    Raises:
        WeightsError: as `SafetensorsFile`, or if the index cannot be read or names a file elsewhere.
    """
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: no index of safetensors shards: {error}") from None
    for shard in shards:
        if not isinstance(shard, str) or pathlib.PurePath(shard).name != shard:
            raise WeightsError(f"{index}: it names {shard!r}, expected files beside it")
    return SafetensorsFile(str(index), [index.parent / shard for shard in shards])


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray], said: Mapping[str, str]) -> None:
    """Writes arrays, float32, with texts beside them.

    Raises:
        OSError: if it cannot be written.
    """
    path.write_bytes(safetensors.numpy.save(dict(arrays), dict(said)))
