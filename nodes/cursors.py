"""Where the run loops are in their streams: told to the learner, saved with its state.

A run loop reports a cursor when everything before it is in the tables. So one that is
started again, or a run that is resumed, repeats what was written after the last report,
and leaves nothing out.
"""

import collections
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

    def __init__(
        self,
        known: Mapping[str, Iterable[Cursor]] | None = None,
        table_batches: Mapping[str, int] | None = None,
    ) -> None:
        """Begins with those of a checkpoint.

        Args:
            known: of the checkpoint.
            table_batches: by data set how many of a run loop's batches its tables, and
                what reads them, may hold.
        """
        self._lock = threading.Lock()
        self._known = {data_set: list(cursors) for data_set, cursors in (known or {}).items()}
        self._table_batches = dict(table_batches or {})
        # By data set and reader, the newest last.
        self._reported: dict[str, dict[int, collections.deque[Cursor]]] = {}

    def put(self, data_set: str, cursor: Cursor) -> None:
        """Takes a run loop's newest cursor."""
        with self._lock:
            found = self._reported.setdefault(data_set, {})
            for reader, old in list(found.items()):
                # Readers that began with what these had left.
                if old[-1]["generation"] < cursor["generation"]:
                    del found[reader]
            kept = 1 + self._table_batches.get(data_set, 0)
            found.setdefault(cursor["reader"], collections.deque(maxlen=kept)).append(cursor)

    def get(self, data_set: str) -> list[Cursor]:
        """What a stream of the data set is continued from, if its tables are still there."""
        with self._lock:
            newest = [reported[-1] for reported in self._reported.get(data_set, {}).values()]
            return stream.newest_cursors([*self._known.get(data_set, []), *newest])

    def all(self) -> dict[str, list[Cursor]]:
        """As `get`, of all data sets."""
        return {data_set: self.get(data_set) for data_set in {**self._known, **self._reported}}

    def all_before_tables(self) -> dict[str, list[Cursor]]:
        """From where all data sets are continued if what their tables hold is lost."""
        with self._lock:
            found = {}
            for data_set in {**self._known, **self._reported}:
                # Who has not reported so often is taken to be where it began.
                before = [
                    reported[0]
                    for reported in self._reported.get(data_set, {}).values()
                    if len(reported) == reported.maxlen
                ]
                found[data_set] = stream.newest_cursors([*self._known.get(data_set, []), *before])
            return found


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
