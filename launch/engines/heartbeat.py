"""A node's heartbeat: a line a second through a pipe, to whoever watches its process on its host.

The node's end is a thread of its own, which a busy main thread does not hold up: XLA, NumPy and
everything that waits let go of the interpreter. A process that is stopped (SIGSTOP), or that
holds on to the interpreter in a call into C, falls silent; one that loops says that it does not
get on. No network and no disk is needed for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Callable

from classact.nodes import activity

VARIABLE = "CLASSACT_HEARTBEAT"
"""Names, in a task's environment, the file descriptor to write to."""

_BEAT_SECONDS = 1.0
# What a beat comes later than this after another, its process was stopped.
_LATE_SECONDS = 5.0
# Before its first beat a process imports, possibly from a slow disk that all nodes share.
START_SECONDS = 600.0
_LONGEST_LINE = 4096


def beat() -> None:
    """Begins to send this process's heartbeat, if somebody listens; returns at once."""
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        return
    pipe = int(number)
    # Processes that the node starts are not it.
    os.set_inheritable(pipe, False)
    # Whoever listens may be stopped as well: then beats are lost, and nothing waits.
    os.set_blocking(pipe, False)
    threading.Thread(target=_send, args=(pipe,), name="heartbeat", daemon=True).start()


def _send(pipe: int) -> None:
    pause = threading.Event()
    last = time.monotonic()
    while True:
        now = time.monotonic()
        # While the whole run is stopped (a job that Slurm suspends), nobody gets on.
        activity.excuse(now - last - _LATE_SECONDS)
        last = now
        found = activity.report()
        line = json.dumps([round(found.stuck_seconds, 1), found.doing[: _LONGEST_LINE // 8]]) + "\n"
        try:
            os.write(pipe, line.encode())
        except BlockingIOError:
            pass
        # Nobody listens any more: the launcher is gone, and the kernel ends this process too.
        except OSError:
            return
        pause.wait(_BEAT_SECONDS)


class Listener:
    """The other end. Counts only the time in which it listens itself.

    So neither a launcher that was stopped for a while nor a machine that slept makes it believe
    that all nodes hang.

    Attributes:
      doing: what the node has last said of itself; "" before its first beat.
    """

    def __init__(self, hung_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Opens the pipe.

        Args:
          hung_seconds: how long a node may be silent, or not get on; 0: for ever.
          clock: gives seconds.
        """
        self._read, self.pipe = os.pipe()
        os.set_blocking(self._read, False)
        self._hung_seconds = hung_seconds
        self._clock = clock
        self._silent = 0.0
        self._stuck = 0.0
        self._last = clock()
        self._rest = b""
        self._heard = self._over = False
        self.doing = ""

    def started(self) -> None:
        """Closes the node's end here, once the node has it."""
        os.close(self.pipe)

    def listen(self) -> str | None:
        """Hears what the node says within a second.

        Returns:
          Why the node hangs, in words; "" if it does not; None if its process is over.
        """
        wait = min(_BEAT_SECONDS, self._hung_seconds / 4) if self._hung_seconds else _BEAT_SECONDS
        _await(self._read, wait)
        now = self._clock()
        # It may have been away itself.
        self._silent += min(now - self._last, 2 * wait)
        self._last = now
        self._hear()
        return None if self._over else self._hangs()

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self._read)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self._read, 65_536)
                if not data:
                    self._over = True
                    return
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    with contextlib.suppress(ValueError):
                        self._stuck, self.doing = json.loads(line)
                        self._silent, self._heard = 0.0, True

    def _hangs(self) -> str:
        if not self._hung_seconds:
            return ""
        said = f"; it last said, {self.doing}" if self.doing else ""
        if self._silent > (self._hung_seconds if self._heard else max(self._hung_seconds, START_SECONDS)):
            return f"was silent for {self._silent:.0f} s{said}"
        if self._stuck > self._hung_seconds:
            return f"did not get on for {self._stuck:.0f} s{said}"
        return ""


def _await(pipe: int, seconds: float) -> None:
    """Waits until there is something to read. Not by `select`, which knows no descriptor above 1023."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.poll(1000 * seconds)
