"""Shows how a command gets on that counts something: how many of how many, and how long it will take."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Optional

import rich.console
import rich.progress

# Without a terminal: between two lines, unless a tenth more is done.
_PLAIN_SECONDS = 30.0


class Counting:
    """A bar on a terminal, lines elsewhere; while the context lasts."""

    def __init__(
        self,
        what: str,
        total: int,
        done: int = 0,
        console: Optional[rich.console.Console] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Shows nothing yet.

        Args:
            what: is counted, in the plural.
            total: how many there are, at least 1.
            done: how many are done already, which took no time.
            console: where to show it; standard error by default.
            clock: seconds, for tests.
        """
        self._what, self._total, self._done, self._before = what, total, done, done
        self._console = console or rich.console.Console(stderr=True)
        self._clock = clock
        self._started = self._said_at = clock()
        self._said_tenth = 10 * done // total
        self._bar: Optional[rich.progress.Progress] = None

    def __enter__(self) -> "Counting":
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn(self._what),
                rich.progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.add_task(self._what, total=self._total, completed=self._done)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, count: int) -> None:
        """Counts so many more."""
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
            return
        now, tenth = self._clock(), 10 * self._done // self._total
        if tenth > self._said_tenth or now - self._said_at >= _PLAIN_SECONDS:
            self._said_at, self._said_tenth = now, tenth
            self._console.print(self.line(), markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """The progress as one line of text."""
        seconds = self._clock() - self._started
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        left = f" | {(self._total - self._done) / rate:,.0f} s left" if rate else ""
        share = self._done / self._total
        return f"{self._done:,}/{self._total:,} {self._what} ({share:.0%}) | {rate:,.0f}/s{left}"
