"""NumPy's npz files, as big_vision writes them."""

import math
import pathlib
import struct
import zipfile
import zlib
from typing import IO

import ml_dtypes
import numpy as np

from classact.weights.errors import WeightsError
from classact.weights.files import packed
from classact.weights.files.tensors import Tensor

_DAMAGED = (
    OSError,
    ValueError,
    OverflowError,
    MemoryError,
    EOFError,
    KeyError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# numpy writes bfloat16 as two bytes of nothing that it knows.
_TWO_BYTES = np.dtype("V2")


class NpzFile:
    """The arrays of one file."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the arrays' headers.

        Raises:
            WeightsError: if it is missing or damaged, or holds objects.
        """
        self.label = str(path)
        self._path = path
        self.tensors: dict[str, Tensor] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                packed.check(path, archive)
                for member in archive.infolist():
                    with archive.open(member) as file:
                        shape, dtype = _header(file)
                    name = member.filename.removesuffix(".npy")
                    if name in self.tensors:
                        raise ValueError(f"{name} is in it twice")
                    if math.prod(shape) * dtype.itemsize > member.file_size:
                        raise ValueError(f"{name} is larger than what is there of it")
                    self.tensors[name] = Tensor(shape, "bfloat16" if dtype == _TWO_BYTES else str(dtype))
        except FileNotFoundError:
            raise WeightsError(f"{path}: no such file") from None
        except _DAMAGED as error:
            raise WeightsError(f"{path}: truncated, damaged or no npz file: {error}") from None

    def read(self, name: str) -> np.ndarray:
        """See `TensorFile.read`."""
        try:
            with np.load(self._path, allow_pickle=False) as file:
                array = np.asarray(file[name])
        except _DAMAGED as error:
            raise WeightsError(f"{self._path}: {name} cannot be read: {error}") from None
        return array.view(ml_dtypes.bfloat16).astype(np.float32) if array.dtype == _TWO_BYTES else (
            array.astype(np.float32)
        )  # fmt: skip


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
