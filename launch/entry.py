"""What a task's process runs: its node, with what the node says to the engine and hears from it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from classact.data.source import DataError
from classact.experiments.config import ConfigError
from classact.launch.task import FATAL_STATUS, STOP_SIGNAL_VARIABLE
from classact.nodes.errors import FatalError

_FATAL = (FatalError, DataError, ConfigError)


class Entry:
    """A node's function, as Launchpad calls it in the main thread of the node's process.

    It can be pickled if the function can.

    A cluster that takes a host away signals every process there, and not in the order
    in which a run stops. Where the environment names another signal, that one does what
    SIGTERM does elsewhere, and SIGTERM does nothing: whoever started the process gets it
    too, and says when it counts (`on_host`).
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        """Takes what the node is to do."""
        self._function = function

    def __call__(self) -> Any:
        """Calls the function, and returns what it returns.

        Raises:
          SystemExit: with `FATAL_STATUS`, if the function fails with an error that a
            restart cannot cure; its traceback is printed first.
          Exception: any other failure of the function.
        """
        if STOP_SIGNAL_VARIABLE in os.environ:
            _heed_instead_of_sigterm(signal.Signals[os.environ[STOP_SIGNAL_VARIABLE]])
        try:
            return self._function()
        except _FATAL as error:
            _print_as_uncaught(error)
            # JAX waits minutes at exit for the other hosts of a learner, which wait for
            # this one; and an exit that fails would hide the status.
            atexit.register(_leave)
            raise SystemExit(FATAL_STATUS) from None


def _heed_instead_of_sigterm(number: signal.Signals) -> None:
    on_stop = signal.getsignal(signal.SIGTERM)
    assert callable(on_stop), "Launchpad has installed its handler"

    def stop(_: int, frame: FrameType | None) -> None:
        on_stop(signal.SIGTERM, frame)

    signal.signal(number, stop)
    # Not SIG_IGN, which children of this process would inherit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)


def _print_as_uncaught(error: BaseException) -> None:
    """Prints a traceback from the process's outermost frame on, by which `crash_report` knows it."""
    report = traceback.TracebackException.from_exception(error)
    report.stack[:0] = traceback.extract_stack(sys._getframe(2))
    print("".join(report.format()), end="", file=sys.stderr, flush=True)


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FATAL_STATUS)
