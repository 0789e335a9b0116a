"""Signals to the launcher, turned into events of its queue."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Launchpad's worker manager takes these over for good when it is first used.
_TAKEN_BY_LAUNCHPAD = (signal.SIGQUIT, signal.SIGALRM)


@dataclasses.dataclass(frozen=True)
class Interrupt:
    """Somebody asked the launcher to stop.

    Attributes:
      signal: the signal's number.
    """

    signal: int

    @property
    def name(self) -> str:
        """The signal's name, for instance "SIGTERM"."""
        return signal.Signals(self.signal).name


class Interrupts:
    """Installs handlers that only put an `Interrupt` on a queue.

    `queue.SimpleQueue.put` is re-entrant, so a handler may call it whatever the
    main thread was doing, and a `get` that waits there returns at once.
    """

    def __init__(self, events: queue.SimpleQueue[Any]) -> None:
        self._events = events

    def install(self) -> None:
        """Takes SIGINT, SIGTERM and SIGHUP over; may be called again to retake them."""
        for number in _STOPPING:
            # An ignored SIGHUP is `nohup`: the run is meant to outlive its terminal.
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._events.put(Interrupt(number))


@contextlib.contextmanager
def interrupts_to(events: queue.SimpleQueue[Any]) -> Iterator[Interrupts]:
    """Puts an `Interrupt` on `events` for each SIGINT, SIGTERM or SIGHUP.

    SIGCHLD is not ignored meanwhile, since otherwise the kernel forgets how a child
    ended. Every handler, also of the signals that Launchpad takes, is put back.

    Args:
      events: where to put them.

    Yields:
      The installer, for callers that run code which takes the signals over.

    Raises:
      RuntimeError: outside the main thread, where Python sets no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a program is launched from the main thread: only it receives signals")
    before = {
        number: signal.getsignal(number) for number in (*_STOPPING, *_TAKEN_BY_LAUNCHPAD, signal.SIGCHLD)
    }
    interrupts = Interrupts(events)
    try:
        interrupts.install()
        if before[signal.SIGCHLD] == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield interrupts
    finally:
        for number, handler in before.items():
            # None: set by C code, which Python can neither call nor set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
