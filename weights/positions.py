"""Position embeddings for another image size, as the tools do it that the weights come from.

Each is a product with one small matrix an axis, so all are one function.
"""

import dataclasses
from typing import Any

import numpy as np

from classact.weights.architecture import Checkpoint
from classact.weights.errors import WeightsError

# "antialiased": timm and open_clip (bicubic, as Pillow); "bicubic": Hugging Face's models (PyTorch's,
# without antialiasing); "corners": big_vision (linear, with the corners in place).
METHODS = ("antialiased", "bicubic", "corners")


def resized(positions: np.ndarray, old: tuple[int, int], new: tuple[int, int], method: str) -> np.ndarray:
    """Interpolates a grid of positions.

    Args:
        positions: float32[N, D], row by row.
        old: rows and columns of the N.
        new: rows and columns to make.
        method: one of `METHODS`.

    Returns:
        float32[M, D].
    """
    if old == new:
        return positions
    grid = positions.reshape(*old, -1).astype(np.float64)
    rows, columns = (_matrix(*sizes, method) for sizes in zip(old, new, strict=True))
    made = np.einsum("ri,cj,ijd->rcd", rows, columns, grid, optimize=True)
    return made.reshape(-1, positions.shape[-1]).astype(np.float32)


def _matrix(old: int, new: int, method: str) -> np.ndarray:
    """Weights float64[new, old] of one axis."""
    if method == "corners":
        places = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
        return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(old)[None]))
    places = (np.arange(new) + 0.5) * (old / new) - 0.5
    if method == "antialiased":
        # The kernel of Pillow, as wide as the step where the grid becomes smaller; cut at the borders.
        wide = max(old / new, 1.0)
        weights = _cubic((places[:, None] - np.arange(old)[None]) / wide, -0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    # What lies beyond the borders is the border's.
    matrix = np.zeros((new, old))
    first = np.floor(places).astype(int)
    for tap in range(-1, 3):
        index = first + tap
        weights = _cubic(places - index, -0.75)
        np.add.at(matrix, (np.arange(new), np.clip(index, 0, old - 1)), weights)
    return matrix


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def at_size(checkpoint: Checkpoint, image_size: tuple[int, int], method: str) -> Checkpoint:
    """The checkpoint for images of another size.

    Args:
        checkpoint: to change.
        image_size: (height, width) in pixels.
        method: one of `METHODS`.

    Raises:
        WeightsError: if its patches do not divide the size.
    """
    tower = checkpoint.architecture.image
    if any(side % tower.patch_size or side < 1 for side in image_size):
        height, width = image_size
        raise WeightsError(
            f"{checkpoint.source}: image_size={height}×{width}: expected multiples of its "
            f"patch_size={tower.patch_size}"
        )
    new = dataclasses.replace(tower, image_size=image_size)
    architecture = dataclasses.replace(checkpoint.architecture, image=new)
    variables = dict(checkpoint.variables)
    if tower.variant.positions == "learned":
        inside = architecture.text is not None
        params: dict[str, Any] = dict(variables["params"])
        image = dict(params["image"]) if inside else params
        stored = image["positions"][0]
        first = len(stored) - tower.grid[0] * tower.grid[1]
        made = resized(stored[first:], tower.grid, new.grid, method)
        image["positions"] = np.concatenate([stored[:first], made])[None]
        variables["params"] = {**params, "image": image} if inside else image
    own = dataclasses.replace(checkpoint.input, image_size=image_size)
    return dataclasses.replace(checkpoint, architecture=architecture, input=own, variables=variables)
