"""A file's arrays against what a layout expects: checked by names, shapes and dtypes before any is read."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classact.weights.entries import Entry, Path, Shape
from classact.weights.errors import WeightsError
from classact.weights.files.tensors import FLOATS, TensorFile


def read(
    file: TensorFile, entries: Sequence[Entry], what: str, ignored: Sequence[str] = ()
) -> dict[str, Any]:
    """Reads the parameters of a model.

    Args:
        file: to read from.
        entries: its layout.
        what: the model, for messages.
        ignored: regular expressions of names that may be there and are not needed.

    Returns:
        `params` as nested dicts of float32 arrays of numpy.

    Raises:
        WeightsError: with the first missing, surplus and misshaped names, or if the file
            is damaged.
    """
    check(file, entries, what, ignored)
    params: dict[str, Any] = {}
    for entry in entries:
        arrays = entry.read([file.read(name) for name, _ in entry.theirs])
        for path, array in zip(entry.ours, arrays, strict=True):
            # A copy: what is cut out of a larger array would keep all of it in memory.
            put(params, path, np.array(array, np.float32, order="C"))
    return params


def check(file: TensorFile, entries: Sequence[Entry], what: str, ignored: Sequence[str] = ()) -> None:
    """Compares names, shapes and dtypes; see `read`."""
    expected = {name: shape for entry in entries for name, shape in entry.theirs}
    found = file.tensors
    missing = [name for name in expected if name not in found]
    surplus = [
        name
        for name in found
        if name not in expected and not any(re.fullmatch(pattern, name) for pattern in ignored)
    ]
    there = [(name, found[name], shape) for name, shape in expected.items() if name in found]
    misshaped = [
        f"{name} {list(tensor.shape)} where {list(shape)} is expected"
        for name, tensor, shape in there
        if tensor.shape != shape
    ]
    other = [f"{name} of {tensor.dtype}" for name, tensor, _ in there if tensor.dtype not in FLOATS]
    said = [
        f"{len(names):,} {kind} (first: {names[0]})"
        for kind, names in (
            ("missing", missing),
            ("surplus", surplus),
            ("of another shape", misshaped),
            ("no floats", other),
        )
        if names
    ]
    if said:
        raise WeightsError(f"{file.label}: its arrays are not those of {what}: {'; '.join(said)}")


def write(params: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The arrays of a layout, by name: the inverse of `read`.

    Raises:
        ValueError: if the parameters are not those of the layout, which would be an error here.
    """
    found: dict[str, np.ndarray] = {}
    used: set[Path] = set()
    for entry in entries:
        arrays = entry.write([np.asarray(get(params, path)) for path in entry.ours])
        used |= set(entry.ours)
        for (name, shape), array in zip(entry.theirs, arrays, strict=True):
            found[name] = _of_shape(name, array, shape)
    left = set(paths(params)) - used
    if left:
        raise ValueError(f"parameters without a place in the layout: {sorted(left)}")
    return found


def _of_shape(name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
    if array.shape != shape:
        raise ValueError(f"{name} would have shape {array.shape}, expected {shape}")
    return np.ascontiguousarray(array, np.float32).reshape(shape)


def paths(params: Mapping[str, Any], before: Path = ()) -> list[Path]:
    """Where the arrays of a tree are."""
    found: list[Path] = []
    for name, value in params.items():
        place = (*before, name)
        found += paths(value, place) if isinstance(value, Mapping) else [place]
    return found


def get(params: Mapping[str, Any], path: Path) -> Any:
    """The array at a path."""
    for name in path:
        params = params[name]
    return params


def put(params: dict[str, Any], path: Path, array: np.ndarray) -> None:
    """Places an array at a path."""
    for name in path[:-1]:
        params = params.setdefault(name, {})
    params[path[-1]] = array
