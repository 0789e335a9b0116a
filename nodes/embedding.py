"""What the evaluations of two-tower models share: embedding at one shape, and when similarities tie."""

import functools
from collections.abc import Callable
from typing import Any, Optional

import jax
import numpy as np
from jax.sharding import Mesh

from classact.models import registry
from classact.nodes import activity
from classact.nodes import mesh as mesh_lib

Variables = Any
# embed(variables, rows) -> float32[B, D]
Tower = Callable[[Variables, np.ndarray], np.ndarray]


def image_tower(model: registry.Model, mesh: Optional[Mesh] = None) -> Tower:
    """The compiled forward pass of images: uint8[B, H, W, C] to float32[B, D].

    Args:
        model: two towers.
        mesh: the devices that share the rows, all with the variables; None: one.
    """
    return _tower(model, "image", mesh)


def text_tower(model: registry.Model, mesh: Optional[Mesh] = None) -> Tower:
    """The compiled forward pass of texts: int32[B, L] to float32[B, D]; see `image_tower`."""
    return _tower(model, "text", mesh)


def _tower(model: registry.Model, field: str, mesh: Optional[Mesh]) -> Tower:
    def forward(variables: Variables, rows: jax.Array) -> jax.Array:
        outputs, _ = model.apply(variables, {field: rows}, train=False)
        return outputs[f"{field}_embedding"]

    compiled = mesh_lib.by_rows(mesh, forward)

    def embed(variables: Variables, rows: np.ndarray) -> np.ndarray:
        short = mesh_lib.fill_up(mesh, len(rows)) - len(rows)
        filled = np.concatenate([rows, np.repeat(rows[:1], short, axis=0)]) if short else rows
        return np.asarray(compiled(variables, filled))[: len(rows)]

    return embed


class Embedder:
    """Embeds rows that arrive in any number, in batches of one shape: it compiles once.

    It holds up to `batch_size` rows that wait for more, and all embeddings.
    """

    def __init__(self, embed: Callable[[np.ndarray], Any], batch_size: int) -> None:
        """Builds the embedder.

        Args:
            embed: maps `batch_size` rows [B, ...] to float32[B, D].
            batch_size: rows that are embedded at once.

        Raises:
            ValueError: if the batch size is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self._embed = embed
        self._batch_size = batch_size
        self._waiting: list[np.ndarray] = []
        self._embeddings: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Takes rows [N, ...], N from 0; embeds as many full batches as there are."""
        if not len(rows):
            return
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) < self._batch_size:
            return
        rows = np.concatenate(self._waiting)
        full = len(rows) - len(rows) % self._batch_size
        for start in range(0, full, self._batch_size):
            self._embed_batch(rows[start : start + self._batch_size])
        # A copy, so that the embedded rows can be freed.
        self._waiting = [rows[full:].copy()] if full < len(rows) else []

    def finish(self) -> np.ndarray:
        """Embeds what waits, padded by its first row, and returns float32[N, D] of all rows.

        Raises:
            ValueError: if there were no rows.
        """
        if self._waiting:
            rows = np.concatenate(self._waiting)
            padding = np.repeat(rows[:1], self._batch_size - len(rows), axis=0)
            self._embed_batch(np.concatenate([rows, padding]))
            self._embeddings[-1] = self._embeddings[-1][: len(rows)]
            self._waiting = []
        if not self._embeddings:
            raise ValueError("nothing to embed: the data set gave no examples")
        return np.concatenate(self._embeddings)

    def _embed_batch(self, rows: np.ndarray) -> None:
        # Waits for the result: otherwise batches of images could pile up in memory.
        self._embeddings.append(np.asarray(self._embed(rows), np.float32))
        activity.progressed()


def embedder(tower: Tower, variables: Variables, batch_size: int) -> Embedder:
    """An `Embedder` of a tower with its variables, which should be on the device."""
    return Embedder(functools.partial(tower, variables), batch_size)


def check_finite(name: str, embeddings: np.ndarray) -> None:
    """ValueError, naming the first row, unless all of float32[N, D] is finite."""
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if bad.size:
        raise ValueError(f"{name} embedding {bad[0]} is not finite ({bad.size} of {len(embeddings)} rows)")


def tie_tolerance(first: np.ndarray, second: np.ndarray) -> float:
    """How far below the right candidate's similarity a wrong one still ties with it.

    The same dot product summed in another order differs by a few roundings of
    float32: 4·√D of them, of the largest product of norms. Without this
    allowance a model whose embeddings are all equal would be ranked by chance.

    Args:
        first: float32[N, D].
        second: float32[M, D].
    """
    largest = np.linalg.norm(first, axis=1).max() * np.linalg.norm(second, axis=1).max()
    return 4 * first.shape[1] ** 0.5 * 2.0**-24 * float(largest)
