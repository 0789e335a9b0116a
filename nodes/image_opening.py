"""Images of what the replay has carried, made on the learner's host ahead of their use."""

import contextlib
import threading
from collections.abc import Callable, Mapping

import numpy as np

from classact.data.carried.opening import Opener
from classact.nodes import activity
from classact.nodes.batches import Sampled

Batch = Mapping[str, np.ndarray]


class Transfer:
    """Puts images into the batches of a data set's tables and moves them, in the threads that read them.

    Images are decoded in the threads of `data.decoding.pool`, as far ahead of the updates as the tables
    are read; one batch of the data set at a time, as a source has one reader. What hangs, such
    as a read of a disk, is seen: the reading thread is a part of its node meanwhile, see `activity`.
    """

    def __init__(
        self,
        data_set: str,
        make_opener: Callable[[], Opener] | None,
        to_device: Callable[[Batch], Sampled],
    ) -> None:
        """Opens nothing yet.

        Args:
            data_set: its name.
            make_opener: called before the first batch; it may open data, and take long. None: pixels
                are carried.
            to_device: moves a batch with images.
        """
        self._data_set = data_set
        self._make_opener = make_opener
        self._to_device = to_device
        self._opener: Opener | None = None
        self._lock = threading.Lock()

    def __call__(self, batch: Batch) -> Sampled:
        """Moves a batch of the replay; blocks while images are made, also those of another table.

        Raises:
            DataError: if an image is not what was scored; see `Opener`.
        """
        if self._make_opener is not None:
            batch = self._with_images(batch, self._make_opener)
        return self._to_device(batch)

    def counted(self, statistics: Callable[[], dict[str, float]]) -> Callable[[], dict[str, float]]:
        """A table's statistics, with how many examples this host took twice, in place of others."""
        if self._make_opener is None:
            return statistics
        return lambda: {
            **statistics(),
            "replaced": float(self._opener.replaced) if self._opener is not None else 0.0,
        }

    def _with_images(self, batch: Batch, make_opener: Callable[[], Opener]) -> Batch:
        with activity.part(f"images of {self._data_set}"), contextlib.ExitStack() as held:
            with activity.waiting("images of its other table"):
                held.enter_context(self._lock)
            if self._opener is None:
                with activity.busy("opening the data"):
                    self._opener = make_opener()
            return self._opener(batch, activity.progressed)
