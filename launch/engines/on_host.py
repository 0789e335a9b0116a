"""Runs one task on the host that it was placed on, for engines that span several hosts.

A task means the same there as on the launcher's machine: `LocalProcess` starts it,
and how it ended, what it used and why it crashed is told to the engine.

    python -m classact.launch.engines.on_host TASK.json END.json NOTICE HOLD

runs a saved task, a node of Launchpad, until it ends. It is asked to stop by the engine, with a number of
seconds in the standard input and its end; by SIGTERM or SIGINT, from whoever takes the
host away; and by the end of an empty input, which is what comes when the launcher
dies. The last two are no order of the engine, which asks the learner first: the task
then has HOLD seconds before it is asked, for the learner to save its state, and NOTICE
seconds in all. That a signal has come is printed, for the engine. More of them change
nothing: Slurm may send two at once, and SIGKILL when it loses patience.

END.json is then what `Finished.load` reads, and the exit status is 0: that the task
crashed is the engine's business. If it cannot be written, that is `UNWRITABLE_STATUS`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classact.launch.engines.events import Crash, Ended
from classact.launch.engines.interrupts import Interrupt, interrupts_to
from classact.launch.engines.local.process import LocalProcess
from classact.launch.engines.outcome import TaskEnd
from classact.launch.engines.ports import PortTakenError, held
from classact.launch.engines.task import UNWRITABLE_STATUS, Task

KILL = object()
"""Put on the events of `run_task`, it ends the task at once."""

ALONE = object()
"""Put on the events of `run_task`, it says that the launcher is gone."""

TOLD = re.compile(r"asked to stop by signal (\d+);")
"""What is printed when a signal comes, with its number."""

# A cluster's SIGTERM reaches the task's process as well, which must not heed it.
_STOP_SIGNAL = signal.SIGUSR2
# How often the task's resident size is looked at.
_SAMPLE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Stop:
    """Put on the events of `run_task`, it asks the task to stop.

    Attributes:
      notice: seconds until it is ended.
    """

    notice: float


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a task ended on its host.

    Attributes:
      ended: for the engine's queue.
      end: what its process used; None if it was never started.
    """

    ended: Ended
    end: TaskEnd | None

    def save(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(dataclasses.asdict(self)))
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Finished:
        """Reads what `save` wrote.

        Raises:
          OSError: if the file is not there: the task did not come to its end.
        """
        fields = json.loads(path.read_text())
        ended, end = fields["ended"], fields["end"]
        crash = Crash(**ended["crash"]) if ended["crash"] else None
        return cls(Ended(**{**ended, "crash": crash}), TaskEnd(**end) if end is not None else None)


def run_task(
    task: Task,
    events: queue.SimpleQueue[Any],
    notice: float,
    hold: float = 0.0,
    on_signal: Callable[[int], None] = lambda number: None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Finished:
    """Runs a task; blocks until it has ended.

    The thread that calls this must live as long as the task: the kernel ends the
    task with it.

    Args:
      task: what to run, here.
      events: a `Stop` asks the task to stop, and so do `ALONE` and an `Interrupt` after
        `hold`. An `Interrupt` is told to the engine besides, as `Ended.signal`. `KILL` ends
        the task.
      notice: seconds until the task is ended, from an `Interrupt` or `ALONE` on.
      hold: seconds before it is asked to stop, within the notice.
      on_signal: called at the first `Interrupt`, with its number.
      stop_signal: see `LocalProcess`.

    Returns:
      How it ended. A port that something listens on already is a crash.
    """
    try:
        with held(task.name, task.addresses):
            process = LocalProcess(task, events, stop_signal)
            return _Run(process, events, notice, hold, on_signal).finish()
    except PortTakenError as error:
        return Finished(Ended(task.name, Crash(str(error), "")), None)


class _Run:
    """One call of `run_task`."""

    def __init__(
        self,
        process: LocalProcess,
        events: queue.SimpleQueue[Any],
        notice: float,
        hold: float,
        on_signal: Callable[[int], None],
    ) -> None:
        self._process = process
        self._events = events
        self._notice = notice
        self._hold = hold
        self._on_signal = on_signal
        self._signal: int | None = None
        self._asked = False
        self._ask_at = self._kill_at = math.inf

    def finish(self) -> Finished:
        """Waits for the end."""
        while True:
            self._process.resident_bytes()
            wait = min(_SAMPLE_SECONDS, min(self._ask_at, self._kill_at) - time.monotonic())
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=max(0.0, wait))
                if isinstance(event, Ended):
                    return Finished(dataclasses.replace(event, signal=self._signal), self._process.end)
                self._on_event(event)
            self._do_what_is_due(time.monotonic())

    def _on_event(self, event: Any) -> None:
        if isinstance(event, Stop):
            self._stop(0.0, event.notice)
        elif event is KILL:
            self._kill_at = 0.0
        else:
            self._stop(self._hold, self._notice)
        if isinstance(event, Interrupt) and self._signal is None:
            self._signal = event.signal
            self._on_signal(event.signal)

    def _stop(self, hold: float, notice: float) -> None:
        now = time.monotonic()
        if not self._asked:
            self._ask_at = min(self._ask_at, now + hold)
        self._kill_at = min(self._kill_at, now + notice)

    def _do_what_is_due(self, now: float) -> None:
        if now >= self._ask_at:
            self._asked, self._ask_at = True, math.inf
            self._process.terminate()
        if now >= self._kill_at:
            self._kill_at = math.inf
            self._process.kill()


def main(arguments: list[str]) -> None:
    """Runs the task of a file, and writes how it ended to another.

    Args:
      arguments: paths of the saved task, and of what to write; notice and hold in
        seconds, see `run_task`.
    """
    task_path, end_path = map(Path, arguments[:2])
    notice, hold = map(float, arguments[2:])
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_await_end_of_input, args=(events,), daemon=True).start()
    with interrupts_to(events):
        task = Task.load(task_path)
        finished = run_task(task, events, notice, hold, _tell_signal, _STOP_SIGNAL)
        try:
            finished.save(end_path)
        except OSError as error:
            print(f"{end_path} cannot be written: {error}", flush=True)
            sys.exit(UNWRITABLE_STATUS)


def _tell_signal(number: int) -> None:
    with contextlib.suppress(OSError):  # The launcher is gone.
        print(f"asked to stop by signal {number};", flush=True)


def _await_end_of_input(events: queue.SimpleQueue[Any]) -> None:
    said = b""
    # Not sys.stdin: a thread that waits in its lock makes the interpreter abort at exit.
    while data := os.read(0, 4096):
        said += data
    events.put(Stop(float(said)) if said else ALONE)


if __name__ == "__main__":
    main(sys.argv[1:])
