"""What a task's process runs: its node, with what the node says to the engine and hears from it."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from classact import user_code
from classact.data.source import DataError
from classact.experiments.config import ConfigError
from classact.launch.engines import heartbeat
from classact.launch.engines.task import (
    DIVERGED_STATUS,
    FATAL_STATUS,
    NO_DATA_STATUS,
    STOP_SIGNAL_VARIABLE,
    TASK_VARIABLE,
    UNWRITABLE_STATUS,
)
from classact.nodes.errors import DivergedError, FatalError, NoDataError, chain, unwritable

# A stop that is being told holds up the process's end for no longer.
_LEAVE_SECONDS = 1.0

_FATAL = (FatalError, DataError, ConfigError, user_code.UserCodeError)


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

        In a task's process a failure prints its traceback, as far as that can be done, and
        ends the process at once: with `FATAL_STATUS` if a restart cannot cure it, with
        `DIVERGED_STATUS` if that is because the run has diverged, with `UNWRITABLE_STATUS` if
        its files cannot be written, with `NO_DATA_STATUS` if others delivered nothing, else with 1.
        Neither threads nor what is registered for the exit are waited for: Orbax waits minutes there for the
        rest of a checkpoint that has failed, and JAX for the other hosts of a learner,
        which wait for this one.

        Raises:
          Exception: the function's failure, in any other process.
        """
        heartbeat.beat()
        _heed(signal.Signals[os.environ.get(STOP_SIGNAL_VARIABLE, "SIGTERM")])
        ended: list[int] = []
        if TASK_VARIABLE in os.environ:
            # Registered first, so that it comes last of what the node registers.
            atexit.register(_leave_as, ended)
        try:
            found = self._function()
            ended.append(0)
            return found
        except SystemExit as leave:
            if leave.code is None or isinstance(leave.code, int):
                ended.append(leave.code or 0)
            raise
        # Whatever it is, the process ends by it, and must do so without waiting.
        except Exception as error:
            if TASK_VARIABLE in os.environ:
                # The log may be on a disk that is full.
                with contextlib.suppress(OSError):
                    _print_as_uncaught(error)
                    _print_blame(error)
                _leave_as([_status_of(error)])
            raise


def _status_of(error: Exception) -> int:
    """The exit status of a task that fails so.

    A restart cures what comes from outside of the process: a connection that is lost, a
    server that is gone, a disk that fails, memory that runs out, a signal. It does not
    cure an error that says so (`FatalError`, bad data, a bad configuration), nor any that
    was raised in a user's own code, which does the same again; but there too it may cure
    an error of the machine. All others, of classact's own code and of the libraries, may
    come of what the other nodes went through just then, and are tried again.
    """
    if unwritable(error) is not None:
        return UNWRITABLE_STATUS
    if isinstance(error, DivergedError):
        return DIVERGED_STATUS
    if isinstance(error, NoDataError):
        return NO_DATA_STATUS
    told = any(isinstance(behind, _FATAL) for behind in chain(error))
    return FATAL_STATUS if told or user_code.blamed(error) is not None else 1


def _heed(number: signal.Signals) -> None:
    """Lets a signal do what Launchpad's handler of SIGTERM does, and SIGTERM nothing if it is another one."""
    on_stop = signal.getsignal(signal.SIGTERM)
    if not callable(on_stop):
        return

    def listen() -> None:
        while signals := os.read(told, 64):
            if number in signals:
                on_stop(signal.SIGTERM, None)

    # Not by the main thread, where Python calls a signal's handler: it may be entering the wait for
    # the event that this sets, hold the event's lock, and would then wait for itself for ever. Or it
    # sleeps and is not woken, as the kernel gives this signal to another thread if SIGTERM comes
    # at the same time.
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, name="stop signal", daemon=True)
    listener.start()

    def leave() -> None:
        signal.set_wakeup_fd(-1)
        os.close(tell)
        listener.join(_LEAVE_SECONDS)

    def leave_child() -> None:
        # The pipe is the parent's: what a child of `fork` is told is no stop of the node.
        signal.set_wakeup_fd(-1)
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    os.register_at_fork(after_in_child=leave_child)
    atexit.register(leave)
    # Python gives signals their default action back before it has ended: one that comes so
    # late would make a failure of an end that is none.
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)
    for heeded in (number, signal.SIGTERM):
        # Not SIG_IGN, which children of this process would inherit.
        signal.signal(heeded, lambda number, frame: None)


def _print_as_uncaught(error: BaseException) -> None:
    """Prints a traceback from the process's outermost frame on, by which `crash_report` knows it."""
    report = traceback.TracebackException.from_exception(error)
    report.stack[:0] = traceback.extract_stack(sys._getframe(2))
    print("".join(report.format()), end="", file=sys.stderr, flush=True)


def _print_blame(error: BaseException) -> None:
    """Says below the traceback, which may be long, if a user's code has failed, and where."""
    said = user_code.blamed(error)
    if said is not None:
        print(f"\nan error in your own code: {said}", file=sys.stderr, flush=True)


def _leave_as(ended: list[int]) -> None:
    """Ends the process with the status of a node that has ended; does nothing without one.

    When the interpreter takes itself apart, a thread of C++ that comes back to it (gRPC's,
    XLA's) aborts the process: one of some twenty evaluators ended so while Courier's were there too.
    """
    if ended:
        for stream in (sys.stdout, sys.stderr):
            # Where there is no space for it, the status must still be told.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(ended[0])
