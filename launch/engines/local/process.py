"""A task as a process of this machine: started, watched, ended."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classact.launch.engines import heartbeat
from classact.launch.engines.crash_report import crash_text, describe_exit
from classact.launch.engines.events import Crash, Ended
from classact.launch.engines.outcome import TaskEnd
from classact.launch.engines.task import (
    DIVERGED_STATUS,
    DOING,
    FATAL_STATUS,
    NO_DATA_STATUS,
    STOP_SIGNAL_VARIABLE,
    STOP_STATUS,
    TASK_VARIABLE,
    UNWRITABLE_STATUS,
    Task,
)
from classact.nodes.errors import DivergedError, NoDataError

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# More than a block, so that a disk has to find space for it.
_TRIED_BYTES = 2**16
# For a process that hangs to print where, before it is killed; one that is stopped never does.
_PRINT_SECONDS = 2.0
# Between two times that what a task says of itself is written down.
_NOTE_SECONDS = 10.0
_GUARD = Path(__file__).with_name("guard.py")


class LocalProcess:
    """A started task. Its own thread waits for its end and puts it on the queue.

    Another one hears its heartbeat, and ends it when it hangs: that is its crash.
    """

    def __init__(
        self, task: Task, events: queue.SimpleQueue[Any], stop_signal: signal.Signals = signal.SIGTERM
    ) -> None:
        """Starts it.

        Args:
          task: what to run.
          events: takes its `Ended`.
          stop_signal: asks it to stop; if it is another one than SIGTERM, that does nothing.
        """
        self.end: TaskEnd | None = None
        self._stop_signal = stop_signal
        self._task = task
        self._peak_bytes = 0
        self._killed = False
        self._hung = ""
        self._reaping = threading.Lock()
        self._reaped = False
        self._over = threading.Event()
        stop = {} if stop_signal == signal.SIGTERM else {STOP_SIGNAL_VARIABLE: stop_signal.name}
        listener = heartbeat.Listener(task.hung_seconds)
        guarded = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *task.command]
        task.log_path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            undo.callback(listener.close)
            # Its own copy is the node's.
            undo.callback(listener.started)
            log = undo.enter_context(task.log_path.open("ab"))
            self._log_offset = log.tell()
            # Not closed by a `with`: the waiting thread reaps it.
            self._popen = subprocess.Popen(
                guarded,
                env={
                    **os.environ,
                    **task.env,
                    **stop,
                    TASK_VARIABLE: task.name,
                    heartbeat.VARIABLE: str(listener.pipe),
                },
                pass_fds=[listener.pipe],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal must reach the launcher alone.
                start_new_session=True,
            )
            undo.pop_all()
            log.close()
            listener.started()
        hearing = (listener,)
        threading.Thread(target=self._hear, args=hearing, name=f"hear-{task.name}", daemon=True).start()
        threading.Thread(target=self._wait, args=(events,), name=f"wait-{task.name}", daemon=True).start()

    def terminate(self) -> None:
        """Asks the node to stop: Launchpad sets its stop event."""
        self._signal(os.kill, self._stop_signal)

    def kill(self) -> None:
        """Ends the node and its children at once."""
        self._killed = True
        self._signal(os.killpg, signal.SIGKILL)

    def resident_bytes(self) -> int:
        """Returns the resident size now, with that of its children, and keeps the largest one seen."""
        now, largest = _resident_bytes(self._popen.pid)
        self._peak_bytes = max(self._peak_bytes, largest)
        return now

    def _hear(self, listener: heartbeat.Listener) -> None:
        """Ends the process when it hangs; its `_wait` then tells."""
        note = _Note(self._task.log_path.with_suffix(DOING))
        with contextlib.closing(listener), contextlib.closing(note):
            while (why := listener.listen()) is not None:
                if why and not self._killed:
                    self._hung = why
                    # Python's fault handler prints where every thread is.
                    self._signal(os.kill, signal.SIGABRT)
                    self._over.wait(_PRINT_SECONDS)
                    self._signal(os.killpg, signal.SIGKILL)
                    return
                note.write(listener.doing)

    def _wait(self, events: queue.SimpleQueue[Any]) -> None:
        pid = self._popen.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._signal(os.killpg, signal.SIGKILL)  # What the node left behind.
        with self._reaping:
            _, status, usage = os.wait4(pid, 0)
            self._reaped = True
        self._over.set()
        exit_status = self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.end = TaskEnd(exit_status, usage.ru_utime + usage.ru_stime, self._peak_bytes, self._killed)
        events.put(Ended(self._task.name, self._crash(exit_status), exit_status == STOP_STATUS))

    def _crash(self, exit_status: int) -> Crash | None:
        if exit_status in (0, STOP_STATUS):
            return None
        log_path = self._task.log_path
        said = crash_text(log_path, self._log_offset)
        diverged = None
        # It was there when this life began.
        gone = not log_path.parent.is_dir()
        lacks = ""
        if gone:
            why = f"the run's files cannot be written: {log_path.parent} is gone"
        elif self._hung and exit_status in (-signal.SIGABRT, -signal.SIGKILL):
            message = f"task {self._task.name} {self._hung}, and was killed; log: {log_path}"
            return Crash(message, said)
        elif exit_status == UNWRITABLE_STATUS:
            why = f"the run's files cannot be written: {_refusal(said, log_path.parent)}"
        elif exit_status == DIVERGED_STATUS:
            # The log may be lost.
            error = DivergedError.in_text(said) or DivergedError(0, "its log does not say why, nor the step")
            diverged, why = error.step, str(error)
        elif exit_status == NO_DATA_STATUS:
            missed = NoDataError.in_text(said)
            lacks = missed.data_set if missed is not None else ""
            why = (
                str(missed)
                if missed is not None
                else "got no data, and its log does not say of which data set"
            )
        elif exit_status == FATAL_STATUS:
            why = "an error that no restart cures"
        else:
            why = describe_exit(exit_status)
        message = f"task {self._task.name} crashed: {why}; log: {log_path}"
        fatal = gone or exit_status in (DIVERGED_STATUS, FATAL_STATUS, UNWRITABLE_STATUS)
        return Crash(message, said, fatal, diverged, lacks)

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        # Once the process is reaped, another one may have its number.
        with self._reaping:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    send(self._popen.pid, number)


class _Note:
    """A file with what a task has last said of itself, for `classact status`; it may be missing or old."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0

    def write(self, text: str) -> None:
        """Writes it, if the last time is long enough ago."""
        if text and time.monotonic() >= self._next:
            self._next = time.monotonic() + _NOTE_SECONDS
            # Where it cannot be written, others will say so.
            with contextlib.suppress(OSError):
                self._path.write_text(text + "\n")

    def close(self) -> None:
        """Removes it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _refusal(said: str, folder: Path) -> str:
    """Why a task could not write: by what it said, or, if that could not be written either, by trying."""
    for number in _REFUSALS:
        if os.strerror(number) in said:
            return os.strerror(number)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_TRIED_BYTES))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "by now they can"


def _resident_bytes(pid: int) -> tuple[int, int]:
    """Returns the resident size of a process and its descendants, and the sum of their peaks; zeros if gone.

    Not the `ru_maxrss` of wait4: a new process starts with its parent's.
    """
    now = largest = 0
    for each in _family(pid):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{each}/status", encoding="ascii", errors="replace") as status,
        ):
            for line in status:
                if line.startswith("VmRSS:"):
                    now += int(line.split()[1]) * 1024
                elif line.startswith("VmHWM:"):
                    largest += int(line.split()[1]) * 1024
    return now, largest


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants: a replay's server is its node's child."""
    yield pid
    # Each thread has the children that it started.
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from _family(int(child))
