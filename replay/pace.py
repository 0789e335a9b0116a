"""When a batch is drawn that will be asked for: so late that it is there just in time."""

import collections
import time

# The next batch is expected as early, and to take as long, as the extreme of the last ones.
_REMEMBERED = 5
# A draw may take so many times as long as the longest of the last ones.
_MARGIN = 2.0


class Pace:
    """Learns how often batches are taken and how long it takes to draw one.

    What is drawn earlier than needed was scored by older parameters than it could have been.
    Where drawing takes half as long as an update or longer, or batches are waited for, the next
    one is drawn at once; and those after it where it takes longer still. Of one thread, or under its
    caller's lock.
    """

    def __init__(self) -> None:
        """Knows nothing: the first batches are drawn at once."""
        self._taken: float | None = None
        self._intervals: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)
        self._draws: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)

    def taken(self) -> None:
        """A batch has been taken."""
        now = time.monotonic()
        if self._taken is not None:
            self._intervals.append(now - self._taken)
        self._taken = now

    def drawn(self, seconds: float) -> None:
        """A batch, or a part of one, took so long to draw."""
        self._draws.append(seconds)

    def delay(self, ahead: int = 1) -> float:
        """Seconds from now on until a batch should be drawn, unless it is asked for before.

        Args:
            ahead: which one: 1 is the next to be taken.
        """
        if self._taken is None or len(self._intervals) < _REMEMBERED or not self._draws:
            return 0.0
        due = self._taken + ahead * min(self._intervals) - _MARGIN * max(self._draws)
        return max(0.0, due - time.monotonic())
