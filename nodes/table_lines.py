"""The learner's lines of metrics, with the counts of its tables, for which no update waits."""

import collections
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from classact.nodes import activity

# What gives the size and the counts of a data set's table, and as `<part>/<name>` those of its parts.
Ask = Callable[[], Mapping[str, float]]


class Writer(Protocol):
    """What is needed of `metrics.MetricsWriter`."""

    def write(self, step: int, metrics: Mapping[str, Any], at: float | None = None) -> None:
        """Appends a line; OSError if the disk refuses it."""


class _Line(NamedTuple):
    step: int
    at: float
    values: Mapping[str, float]
    counts: dict[str, float]
    answered: threading.Event


class TableLines:
    """Writes lines when the tables have been counted, which a thread of its own asks for.

    A line's counts are of the moment at which it is given. At most one waits for them: when the next
    one comes, it is written without, and the servers are not asked again before they have answered.
    """

    def __init__(self, metrics: Writer, ask: Mapping[str, Ask]) -> None:
        """Writes nothing yet.

        Args:
            metrics: where to write; by the thread that calls this class, as a disk that
                hangs or refuses a line is that one's.
            ask: by data set; called by another thread, one after the other.
        """
        self._metrics = metrics
        self._ask = dict(ask)
        self._waiting: _Line | None = None
        self._asking = threading.Event()
        self._asking.set()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes a line of a step; asks for the tables' counts, and waits for nothing but the disk.

        Raises:
            OSError: if the disk refuses the line before.
        """
        self._write_waiting()
        line = self._waiting = _Line(step, time.time(), values, {}, threading.Event())
        if self._asking.is_set():
            self._asking = line.answered
            threading.Thread(target=self._count, args=(line,), name="counting tables", daemon=True).start()

    def go_on(self) -> None:
        """Writes the line that waits, if its counts are there; called after each update.

        Raises:
            OSError: if the disk refuses it.
        """
        if self._waiting is not None and self._waiting.answered.is_set():
            self._write_waiting()

    def finish(self) -> None:
        """Writes the line that waits; blocks until its counts are there or the servers' time is over.

        Raises:
            OSError: if the disk refuses it.
        """
        if self._waiting is not None and self._asking is self._waiting.answered:
            with activity.waiting("the tables' counts"):
                self._waiting.answered.wait()
        self._write_waiting()

    def close(self) -> None:
        """Writes the line that waits, whether its counts are there or not.

        Raises:
            OSError: if the disk refuses it.
        """
        self._write_waiting()

    def _write_waiting(self) -> None:
        line, self._waiting = self._waiting, None
        if line is not None:
            counts = line.counts if line.answered.is_set() else {}
            self._metrics.write(line.step, {**line.values, **counts}, at=line.at)

    def _count(self, line: _Line) -> None:
        try:
            line.counts.update(self._counts())
        finally:
            line.answered.set()

    def _counts(self) -> dict[str, float]:
        """The tables' sums, and as `replay/<data set>/…` each one's of several, and their parts'."""
        found: dict[str, float] = collections.defaultdict(float)
        for data_set, ask in self._ask.items():
            try:
                statistics = ask()
            # It will be back, or no batch will come; training goes on meanwhile.
            except RuntimeError as error:
                logging.warning("the tables of %s were not counted: %s", data_set, error)
                continue
            for name, value in statistics.items():
                of_part = "/" in name
                if not of_part:
                    found[f"replay/{name}"] += value
                if of_part or len(self._ask) > 1:
                    found[f"replay/{data_set}/{name}"] = value
        return dict(found)
