"""Keeps the draws of a stream table level with those of the examples' table, as far as updates go."""

from collections.abc import Callable
from typing import Protocol

Ask = Callable[[], dict[str, float]]
# Beside what is read ahead of one table so many batches may lie between the two without anything being
# wrong: what is drawn between two questions.
_BETWEEN = 1.0


class Windows(Protocol):
    """What is needed of `batches.SuperBatches`."""

    def balance(self, batches: int) -> None:
        """Has so many more batches drawn than one an update; fewer if it is negative."""


class StreamBalance:
    """Asks for the counts of the examples' table, and corrects what it sees of the stream's by the way.

    A run that is resumed counts on from what its tables had given out when they were saved, and what was
    read ahead then may have been a part of a batch of one table and a whole one of the other. That adds up
    over many resumes, until the rate limiter of one table stops the writers that the other one waits for.
    """

    def __init__(
        self,
        examples: Ask,
        stream: Ask,
        windows: Windows,
        batch_size: int,
        stream_batch: int,
        super_batch: int,
        read_ahead: int = 1,
    ) -> None:
        """Asks nothing yet.

        Args:
            examples: gives the counts of the examples' table; what this object gives too.
            stream: those of the stream's.
            windows: draw from the stream.
            batch_size: b, drawn of the examples for an update.
            stream_batch: B, drawn of the stream for one.
            super_batch: drawn of the stream for the first one.
            read_ahead: batches of each that are read ahead at most.
        """
        self._examples = examples
        self._stream = stream
        self._windows = windows
        self._batch_size = batch_size
        self._stream_batch = stream_batch
        self._super_batch = super_batch
        self._usual = _BETWEEN + read_ahead

    def __call__(self) -> dict[str, float]:
        """Returns the counts of the examples' table; raises what asking for those of a table does."""
        found = self._examples()
        drawn = self._stream()["samples"]
        if drawn >= self._super_batch:
            updates = (drawn - self._super_batch) / self._stream_batch + 1.0
            ahead = updates - found["samples"] / self._batch_size
            if abs(ahead) > self._usual:
                self._windows.balance(-int(ahead))
        return found
