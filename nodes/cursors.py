"""Where the run loops are in their streams: told to the learner, saved with its state.

A run loop reports a cursor when everything before it is in the tables. So one that is
started again, or a run that is resumed, repeats what was written after the last report,
and leaves nothing out.
"""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from classact.data import stream

Cursor = dict[str, Any]
# Between two tries to reach the learner.
_RETRY_SECONDS = 1.0


class Cursors:
    """The last cursors of each data set's run loops. Any number of threads may use it."""

    def __init__(self, known: Mapping[str, Iterable[Cursor]] | None = None) -> None:
        """Begins with those of a checkpoint."""
        self._lock = threading.Lock()
        self._found = {data_set: list(cursors) for data_set, cursors in (known or {}).items()}

    def put(self, data_set: str, cursor: Cursor) -> None:
        """Takes a run loop's newest cursor in place of its last one."""
        with self._lock:
            self._found[data_set] = stream.newest_cursors([*self._found.get(data_set, []), cursor])

    def get(self, data_set: str) -> list[Cursor]:
        """What a stream of the data set is continued from."""
        with self._lock:
            return list(self._found.get(data_set, []))

    def all(self) -> dict[str, list[Cursor]]:
        """All of them, by data set."""
        with self._lock:
            return {data_set: list(cursors) for data_set, cursors in self._found.items()}


class CursorSource(Protocol):
    """What a run loop's process needs of the learner."""

    def report_cursor(self, data_set: str, cursor: str) -> None:
        """Takes a cursor, as JSON."""


class Reporter:
    """Tells the learner a run loop's newest cursor; never makes the loop wait."""

    def __init__(self, learner: CursorSource, data_set: str, stop: threading.Event) -> None:
        """Starts the thread that tells it.

        Args:
            learner: asked by the thread alone; one that cannot be reached is asked again.
            data_set: the run loop's.
            stop: ends the thread, with its next report or within a second.
        """
        self._learner = learner
        self._data_set = data_set
        self._stop = stop
        self._condition = threading.Condition()
        self._newest: Cursor | None = None
        threading.Thread(target=self._tell, name="cursor", daemon=True).start()

    def __call__(self, cursor: Cursor) -> None:
        """Reports a cursor; a newer one may overtake it."""
        with self._condition:
            self._newest = cursor
            self._condition.notify()

    def _tell(self) -> None:
        told: Cursor | None = None
        while not self._stop.is_set():
            with self._condition:
                if self._newest is told:
                    self._condition.wait(_RETRY_SECONDS)
                cursor = self._newest
            if cursor is None or cursor is told:
                continue
            try:
                self._learner.report_cursor(self._data_set, json.dumps(cursor))
                told = cursor
            except RuntimeError as error:
                logging.warning("the learner did not take a cursor of %s: %s", self._data_set, error)
                self._stop.wait(_RETRY_SECONDS)
