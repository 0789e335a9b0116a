"""While run loops open their data the learner waits: that is not silence of the replay.

Opening a large data set takes minutes: the headers of 50 million pairs take 17. A run loop
says again and again that it is at it, so that a process that dies meanwhile falls silent.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from classact.data import announced

# How long opening may take without getting on, before it counts as delivering nothing: a disk that
# hangs must not hold up a run for ever. An index is made shard by shard, and may take many hours.
LIMIT_SECONDS = 3600.0
# Between two times that a run loop says so, and how long one counts.
_SAY_SECONDS, _HEARD_SECONDS = 2.0, 10.0
# What takes longer is written down.
SLOW_SECONDS = 10.0


class OpeningListener(Protocol):
    """What a run loop's process needs of the learner."""

    def report_opening(self, data_set: str, seconds: float) -> None:
        """Hears that a data set is being opened, and began or last got on so many seconds ago."""


class Openings:
    """What the learner has heard. Any number of threads may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Has heard nothing; `clock` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        # By data set when somebody last said so, and when the last of them began or got on.
        self._heard: dict[str, tuple[float, float]] = {}

    def put(self, data_set: str, seconds: float) -> None:
        """Hears that a run loop is opening a data set, and began or last got on so many seconds ago."""
        now = self._clock()
        with self._lock:
            got_on = now - seconds
            # The others may wait for the one that makes an index.
            if self._seconds(data_set, now) is not None:
                got_on = max(got_on, self._heard[data_set][1])
            self._heard[data_set] = now, got_on

    def seconds(self, data_set: str) -> float | None:
        """How long ago opening a data set last got on, or began; None if nobody has said so lately."""
        with self._lock:
            return self._seconds(data_set, self._clock())

    def _seconds(self, data_set: str, now: float) -> float | None:
        heard, got_on = self._heard.get(data_set, (float("-inf"), now))
        return now - got_on if now - heard < _HEARD_SECONDS else None


def told_here(openings: Openings, data_set: str) -> contextlib.AbstractContextManager[None]:
    """As `told`, where the learner itself opens a data set."""
    return told(_Here(openings), data_set)


def here_or_there(openings: Openings, there: Callable[[str], float | None]) -> Callable[[str], float | None]:
    """What tells a learner's other host how long ago opening a data set got on: by itself, or by others.

    Args:
        openings: of this host, which opens data for what it reads itself.
        there: asks the first host's learner, which the run loops tell.
    """

    def seconds(data_set: str) -> float | None:
        here = openings.seconds(data_set)
        return there(data_set) if here is None else here

    return seconds


class _Here:
    def __init__(self, openings: Openings) -> None:
        self._openings = openings

    def report_opening(self, data_set: str, seconds: float) -> None:
        self._openings.put(data_set, seconds)


@contextlib.contextmanager
def told(learner: OpeningListener | None, data_set: str) -> Iterator[None]:
    """Tells the learner, while the body opens a data set, that it does and gets on; never waits for it.

    Args:
        learner: asked by a thread of its own; None: nobody is told.
        data_set: the run loop's.
    """
    began = got_on = time.monotonic()
    done = threading.Event()

    def progressed() -> None:
        nonlocal got_on
        got_on = time.monotonic()

    def tell(learner: OpeningListener) -> None:
        while not done.is_set():
            try:
                learner.report_opening(data_set, time.monotonic() - got_on)
            # It may be back the next time.
            except RuntimeError as error:
                logging.warning("the learner did not hear that %s is being opened: %s", data_set, error)
            done.wait(_SAY_SECONDS)

    if learner is not None:
        threading.Thread(target=tell, args=(learner,), name="opening", daemon=True).start()
    try:
        with announced.progress_heard_by(progressed):
            yield
    finally:
        done.set()
    seconds = time.monotonic() - began
    if seconds > SLOW_SECONDS:
        logging.warning("opening the data of %s took %.0f s", data_set, seconds)
