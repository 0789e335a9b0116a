"""PyTorch's zip files, `.pt` and `.bin`: tensors by name, and nothing else.

Such a file holds a pickle, which can call anything. Here it can call three functions,
all of this module: what stands for a tensor, for a parameter, and an ordered dict.
Whatever else it names ends the reading.
"""

import collections
import dataclasses
import math
import pathlib
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from classact.weights.errors import WeightsError
from classact.weights.files import packed
from classact.weights.files.tensors import Tensor

_DTYPES: Mapping[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_DAMAGED = (OSError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, RuntimeError,
            OverflowError, MemoryError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """What a file may call. Each time it is named it is a new one: a pickle can also set attributes."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Stored:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *others: Any) -> _Stored:
    del others
    if not isinstance(storage, _Storage) or len(shape) != len(stride):
        raise pickle.UnpicklingError("a tensor without storage")
    return _Stored(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _parameter(data: Any, *others: Any) -> Any:
    del others
    return data


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors alone."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _Kind(name)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and only tensors are read")
        return _Call(_ALLOWED[module, name])

    def persistent_load(self, said: Any) -> _Storage:
        word, kind, key, *_ = said
        if word != "storage" or not isinstance(kind, _Kind) or not str(key).isalnum():
            raise pickle.UnpicklingError("a storage of an unknown kind")
        return _Storage(str(key), _DTYPES[kind.name])


class TorchFile:
    """The tensors of one file."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the names.

        The arrays may be inside `state_dict` or `model`, as checkpoints of training have them.

        Raises:
            WeightsError: if it is missing, damaged, of another format, or holds what is no tensor.
        """
        self.label = str(path)
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                packed.check(path, archive)
                pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if len(pickled) != 1:
                    _refuse("no data.pkl in it")
                self._folder = pickled[0].removesuffix("data.pkl")
                if f"{self._folder}constants.pkl" in archive.namelist():
                    _refuse("it is a TorchScript archive, whose tensors are parts of a program")
                with archive.open(pickled[0]) as file:
                    found = _Reader(file).load()
        except FileNotFoundError:
            raise WeightsError(f"{path}: no such file") from None
        except _DAMAGED as error:
            raise WeightsError(
                f"{path}: no file of plain tensors by PyTorch ({error}); convert it to safetensors where "
                "it can be trusted"
            ) from None
        for inside in ("state_dict", "model"):
            if isinstance(found, dict) and isinstance(found.get(inside), dict):
                found = found[inside]
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise WeightsError(f"{path}: expected tensors by name")
        self._stored = {name: value for name, value in found.items() if isinstance(value, _Stored)}
        self.tensors = {
            name: Tensor(stored.shape, str(stored.storage.dtype)) for name, stored in self._stored.items()
        }

    def read(self, name: str) -> np.ndarray:
        """See `TensorFile.read`."""
        stored = self._stored[name]
        dtype = stored.storage.dtype
        try:
            with zipfile.ZipFile(self._path) as archive:
                flat = np.frombuffer(archive.read(f"{self._folder}data/{stored.storage.key}"), dtype)
            # The last one that is reached must be there: strides are the file's word.
            reach = stored.offset + sum((n - 1) * s for n, s in zip(stored.shape, stored.stride, strict=True))
            if min((stored.offset, *stored.stride)) < 0 or reach >= len(flat):
                _refuse("it reaches beyond its storage")
            # With a stride of 0 a few bytes would be any number of elements.
            if math.prod(stored.shape) > len(flat):
                _refuse("it has more elements than its storage")
            strides = tuple(step * dtype.itemsize for step in stored.stride)
            view = np.lib.stride_tricks.as_strided(
                flat[stored.offset :], stored.shape, strides, writeable=False
            )
            return view.astype(np.float32)
        except _DAMAGED as error:
            raise WeightsError(f"{self._path}: {name} cannot be read: {error}") from None


def _refuse(why: str) -> NoReturn:
    raise pickle.UnpicklingError(why)
