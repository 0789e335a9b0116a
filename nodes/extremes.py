"""The examples with the highest and the lowest scores, left behind for the report."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Rows = dict[str, np.ndarray]


class Extremes:
    """Keeps the rows with the highest and the lowest scores of the last 17 to 32 batches.

    Models change, and so do scores: what was extreme early in the run says little of its end.
    So the batches are counted in parts of 16, and the part before the current one is kept
    whole. Held are two parts of at most `2 · count` rows, however large a batch is.
    """

    def __init__(
        self,
        path: pathlib.Path,
        class_names: Sequence[str] = (),
        decode: Callable[[np.ndarray], list[str]] | None = None,
        count: int = 40,
        part: int = 16,
    ) -> None:
        """Keeps nothing yet.

        Args:
            path: of the `.npz` that `save` writes.
            class_names: go with them, if there are any.
            decode: makes captions of `text`, int32[B, L], to go with them.
            count: of the rows with the highest scores, and of those with the lowest.
            part: batches after which a new part begins.
        """
        self._path = path
        self._class_names = {"class_names": np.array(class_names)} if class_names else {}
        self._decode = decode
        self._count = count
        self._part = part
        self._batches = 0
        self._before: Rows | None = None
        self._current: Rows | None = None

    def add(self, batch: Mapping[str, np.ndarray], keep: np.ndarray) -> None:
        """Looks at a batch with `id` and `score`; copies the rows that it keeps, and no others.

        Args:
            batch: arrays [B, ...] by field.
            keep: bool[B], which rows count.
        """
        if self._batches == self._part:
            self._before, self._current, self._batches = self._current, None, 0
        self._batches += 1
        rows = np.flatnonzero(keep)
        chosen = rows[self._ends(batch["score"][rows])]
        self._current = self._best(self._current, {name: array[chosen] for name, array in batch.items()})

    def save(self) -> None:
        """Writes the rows of both parts by their scores, the lowest first; nothing if there are none."""
        if self._current is None:
            return
        found = self._best(self._before, self._current)
        if self._decode is not None:
            found["caption"] = np.array(self._decode(found["text"]))
        np.savez_compressed(self._path, allow_pickle=False, **found, **self._class_names)

    def _best(self, older: Rows | None, newer: Rows) -> Rows:
        together = newer
        if older is not None:
            together = {name: np.concatenate([array, older[name]]) for name, array in newer.items()}
        # An example that came round twice counts once, with its newest score.
        _, first = np.unique(together["id"], return_index=True)
        chosen = first[self._ends(together["score"][first])]
        return {name: array[chosen] for name, array in together.items()}

    def _ends(self, scores: np.ndarray) -> np.ndarray:
        """Where the lowest and the highest scores are, in their order."""
        order = np.argsort(scores)
        if len(order) <= 2 * self._count:
            return order
        return np.r_[order[: self._count], order[-self._count :]]
