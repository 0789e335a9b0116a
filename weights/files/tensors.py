"""A file of named arrays, of whichever format."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from classact.weights.errors import WeightsError

# What weights may be stored as; all become float32, which holds them exactly.
FLOATS = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array before it is read: its shape, and its dtype as numpy or ml_dtypes call it."""

    shape: tuple[int, ...]
    dtype: str


class TensorFile(Protocol):
    """A file of named arrays."""

    @property
    def label(self) -> str:
        """What it is called in messages."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What it holds, by name."""

    def read(self, name: str) -> np.ndarray:
        """Reads an array as float32.

        Raises:
            WeightsError: if it is damaged.
        """


def length(file: TensorFile, name: str, axis: int) -> int:
    """The length of an axis of an array that is there; WeightsError if it has no such axis."""
    shape = file.tensors[name].shape
    if axis >= len(shape):
        raise WeightsError(f"{file.label}: {name} {list(shape)} has {len(shape)} axes, expected more")
    return shape[axis]


class Renamed:
    """A part of a file: the arrays whose names begin with a prefix, without it."""

    def __init__(self, file: TensorFile, prefix: str) -> None:
        """Presents the part of `file`."""
        self._file, self._prefix = file, prefix
        self.label = file.label
        self.tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in file.tensors.items()
            if name.startswith(prefix)
        }

    def read(self, name: str) -> np.ndarray:
        """See `TensorFile.read`."""
        return self._file.read(self._prefix + name)


class Unstacked:
    """A file in which arrays of equal layers are stacked, as single ones.

    What is called `…encoderblock/…` and has an axis of layers is then `…encoderblock_0/…` and so on.
    """

    _STACKED = re.compile(r"(.*encoderblock)(/.*)")

    def __init__(self, file: TensorFile) -> None:
        """Presents `file`."""
        self._file = file
        self.label = file.label
        self.tensors: dict[str, Tensor] = {}
        self._places: dict[str, tuple[str, int]] = {}
        # Of a file that is packed, each would be unpacked again for every layer.
        self._read: dict[str, np.ndarray] = {}
        for name, tensor in file.tensors.items():
            stacked = self._STACKED.fullmatch(name)
            if not stacked or not tensor.shape:
                self.tensors[name] = tensor
                continue
            for layer in range(tensor.shape[0]):
                single = f"{stacked[1]}_{layer}{stacked[2]}"
                self.tensors[single] = Tensor(tensor.shape[1:], tensor.dtype)
                self._places[single] = name, layer

    def read(self, name: str) -> np.ndarray:
        """See `TensorFile.read`."""
        if name not in self._places:
            return self._file.read(name)
        stacked, layer = self._places[name]
        if stacked not in self._read:
            self._read[stacked] = self._file.read(stacked)
        return self._read[stacked][layer]
