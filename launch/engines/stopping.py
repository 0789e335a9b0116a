"""The stop of a run: which tasks are asked when, and when what is left of them is ended."""

from __future__ import annotations

from collections.abc import Callable, Collection

from classact.launch.engines.terms import Patience

Ask = Callable[[Collection[str], float], None]
End = Callable[[Collection[str]], None]


class Stopping:
    """The phases of a stop, which begins once.

    The awaited tasks are asked first, the others when those have ended or after half the
    notice. What is left after the notice is ended, and what is then left is given up.
    """

    def __init__(
        self,
        awaited: Collection[str],
        patience: Patience,
        clock: Callable[[], float],
        ask: Ask,
        end: End,
        tell_seconds: float,
        reap_seconds: float,
    ) -> None:
        """Asks nobody yet.

        Args:
          awaited: names of the tasks to ask first; may become fewer.
          patience: how long the stop may take.
          clock: gives the time in seconds.
          ask: asks tasks to stop, within so many seconds; returns at once.
          end: ends tasks; returns at once.
          tell_seconds: how long to wait, after the notice, for hosts to end tasks themselves.
          reap_seconds: how long to wait for ended tasks to vanish.
        """
        self._awaited = awaited
        self._notice = patience.stop_notice
        self._clock = clock
        self._ask = ask
        self._end = end
        self._tell_seconds = tell_seconds
        self._reap_seconds = reap_seconds
        self._notice_end = 0.0
        self._others_at: float | None = None
        self._deadline: float | None = None
        self._ended = False
        self.begun = False

    @property
    def given_up(self) -> bool:
        """Whether nothing more can be done about what still runs."""
        return self._ended and self._deadline is None

    @property
    def times(self) -> tuple[float, ...]:
        """When `advance` is to be called."""
        return tuple(time for time in (self._deadline, self._others_at) if time is not None)

    def begin(self, running: Collection[str]) -> None:
        """Asks the awaited ones of the running tasks to stop; all, if none of them is awaited."""
        self.begun = True
        now = self._clock()
        self._notice_end = now + self._notice
        self._deadline = self._notice_end + self._tell_seconds
        first = set(running) & set(self._awaited)
        if first:
            self._others_at = now + self._notice / 2
        self._ask(first or set(running), self._notice)

    def advance(self, running: Collection[str]) -> None:
        """Does what is due by now."""
        now = self._clock()
        if self._deadline is not None and now >= self._deadline:
            if self._ended:
                self._deadline = None
            else:
                self.hurry(running)
        if self._others_at is not None and now >= self._others_at:
            self._ask_others(running)

    def on_end(self, running: Collection[str]) -> None:
        """Hears that a task is over, and which ones still run."""
        if self._others_at is not None and not set(running) & set(self._awaited):
            self._ask_others(running)

    def hurry(self, running: Collection[str]) -> None:
        """Ends what still runs, without waiting for the notice."""
        if not self._ended:
            self._ended = True
            self._others_at = None
            self._deadline = self._clock() + self._reap_seconds
            self._end(running)

    def _ask_others(self, running: Collection[str]) -> None:
        self._others_at = None
        others = set(running) - set(self._awaited)
        if others:
            self._ask(others, self._notice_end - self._clock())
