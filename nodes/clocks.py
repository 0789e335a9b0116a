"""The time of each table's race: kept by the learner, who draws, and asked for by who inserts."""

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from classact.selection.race import Clock

# Between two tries to reach the learner.
_RETRY_SECONDS = 1.0


class Clocks:
    """The clocks of a data set's tables, one a shard. Any number of threads may use it."""

    def __init__(self, shards: int, known: Sequence[Clock] = ()) -> None:
        """Begins with those of a checkpoint, if it has them.

        Args:
            shards: how many.
            known: of a checkpoint; empty: time 0.
        """
        self._lock = threading.Lock()
        self._clocks = list(known) or [Clock()] * shards

    def drawn(self, shard: int, priorities: np.ndarray) -> None:
        """Takes the priorities float64[n] of what has been drawn of a shard, in order."""
        after = self._clocks[shard].after(priorities.tolist())
        with self._lock:
            self._clocks[shard] = after

    def all(self) -> list[Clock]:
        """The clocks by shard, as they are now."""
        with self._lock:
            return list(self._clocks)


class ClockSource(Protocol):
    """What a run loop's process needs of the learner."""

    def get_clock(self, data_set: str, shard: int) -> str:
        """The clock of a shard, as JSON."""


class ClockFollower:
    """Tells a run loop the newest clock that it knows, without ever making it wait.

    A thread asks the learner each time that the clock was read, so what is read is as
    old as the last reading: a writer reads it for every few items. While the learner is
    gone it is the last one known.
    """

    def __init__(self, learner: ClockSource, data_set: str, shard: int, stop: threading.Event) -> None:
        """Starts the thread.

        Args:
            learner: asked by the thread alone.
            data_set: the run loop's.
            shard: of the data set, that the run loop writes to.
            stop: ends the thread, with its next answer or within a second.
        """
        self._learner = learner
        self._data_set = data_set
        self._shard = shard
        self._stop = stop
        self._clock = Clock()
        self._read = threading.Event()
        self._read.set()
        threading.Thread(target=self._ask, name="clock", daemon=True).start()

    def __call__(self) -> Clock:
        """The newest clock that is known."""
        self._read.set()
        return self._clock

    def _ask(self) -> None:
        while not self._stop.is_set():
            if not self._read.wait(_RETRY_SECONDS):
                continue
            self._read.clear()
            try:
                self._clock = Clock.from_json(self._learner.get_clock(self._data_set, self._shard))
            except (RuntimeError, OSError) as error:
                logging.warning("the learner did not tell the clock of %s: %s", self._data_set, error)
                self._stop.wait(_RETRY_SECONDS)
