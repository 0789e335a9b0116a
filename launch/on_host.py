"""Runs one task on the host that it was placed on, for engines that span several hosts.

A task means the same there as on the launcher's machine: `LocalProcess` starts it,
and how it ended, what it used and why it crashed is told to the engine.

    python -m classact.launch.on_host TASK.json END.json

runs a saved task until it ends. The end of standard input asks it to stop, which is
also what comes when the launcher dies; so does SIGTERM or SIGINT, from whoever takes
the host away; a second one ends it. END.json is then what `Finished.load` reads, and
the exit status is 0: that the task crashed is the engine's business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from classact.launch.engine import Crash, Ended, Patience
from classact.launch.interrupts import Interrupt, interrupts_to
from classact.launch.local_process import LocalProcess
from classact.launch.outcome import TaskEnd
from classact.launch.ports import PortTakenError, held
from classact.launch.task import Task

KILL = object()
"""Put on the events of `run_task`, it ends the task at once."""

# How often the task's resident size is looked at.
_SAMPLE_SECONDS = 1.0


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
    task: Task, events: queue.SimpleQueue[Any], stop_notice: float = Patience.stop_notice
) -> Finished:
    """Runs a task; blocks until it has ended.

    The thread that calls this must live as long as the task: the kernel ends the
    task with it.

    Args:
      task: what to run, here.
      events: whatever is put on it asks the task to stop. An `Interrupt` is told to
        the engine, as `Ended.signal`, and a second one, or `KILL`, ends the task.
      stop_notice: seconds from asking it to stop to ending it.

    Returns:
      How it ended. A port that something listens on already is a crash.
    """
    try:
        with held(task.name, task.addresses):
            return _run(task, events, stop_notice)
    except PortTakenError as error:
        return Finished(Ended(task.name, Crash(str(error), "")), None)


def _run(task: Task, events: queue.SimpleQueue[Any], stop_notice: float) -> Finished:
    process = LocalProcess(task, events)
    deadline: float | None = None
    signals: list[int] = []
    while True:
        process.resident_bytes()
        with contextlib.suppress(queue.Empty):
            event = events.get(timeout=_SAMPLE_SECONDS)
            if isinstance(event, Ended):
                asked = signals[0] if signals else None
                return Finished(dataclasses.replace(event, signal=asked), process.end)
            if isinstance(event, Interrupt):
                signals.append(event.signal)
            if event is KILL or len(signals) > 1:
                process.kill()
            elif deadline is None:
                deadline = time.monotonic() + stop_notice
                process.terminate()
        if deadline is not None and time.monotonic() > deadline:
            process.kill()


def main(arguments: list[str]) -> None:
    """Runs the task of a file, and writes how it ended to another.

    Args:
      arguments: paths of the saved task, and of what to write.
    """
    task_path, end_path = map(Path, arguments)
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_await_end_of_input, args=(events,), daemon=True).start()
    with interrupts_to(events):
        run_task(Task.load(task_path), events).save(end_path)


def _await_end_of_input(events: queue.SimpleQueue[Any]) -> None:
    # Not sys.stdin: a thread that waits in its lock makes the interpreter abort at exit.
    while os.read(0, 4096):
        pass
    events.put("the launcher's end of standard input is closed")


if __name__ == "__main__":
    main(sys.argv[1:])
