"""Runs tasks as processes of this machine: starts, watches and ends them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from classact.launch.crash_report import crash_text, describe_exit
from classact.launch.engine import Crash, Ended, Engine, Patience, awaited_names
from classact.launch.interrupts import Interrupt
from classact.launch.outcome import Outcome, TaskEnd
from classact.launch.ports import check_closed
from classact.launch.tasks import STOP_STATUS, Task, remove_data_files

_GUARD = Path(__file__).with_name("guard.py")


def run_processes(
    tasks: Sequence[Task],
    *,
    until: Collection[str],
    patience: Patience = Patience(),  # noqa: B008 - it is frozen.
    on_start: Callable[[], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Runs tasks on this machine until the awaited ones have ended.

    A task succeeds if its process ends with status 0, and asks for the end of
    the run with `STOP_STATUS`; another end is a crash. `Engine.watch` says what
    follows. SIGTERM asks a task to stop: it sets Launchpad's stop event there.
    SIGKILL ends it after the notice.

    Nothing outlives the call: neither processes, nor what they left in their
    process groups, nor the tasks' data files. If this process dies, the kernel
    kills the tasks. Output goes to each task's log.

    Blocks until all is over; call it from the main thread.

    Args:
      tasks: what to run, from `make_tasks`.
      until: labels whose tasks' success is the end of the run.
      patience: how long to wait for tasks to stop.
      on_start: called once, when all tasks are started.
      on_tick: called about once a second while the tasks run; must not block.

    Returns:
      How the run ended.

    Raises:
      LaunchError: before anything is started, if a label of `until` is no
        task's, or if something listens on a task's address (PortTakenError).
      RuntimeError: outside the main thread.
    """
    awaited = awaited_names(until, {task.name: task.label for task in tasks})
    try:
        check_closed((task.name, address) for task in tasks for address in task.addresses)
        engine = _Processes(tasks, awaited, patience, on_tick)
        with engine.interrupts():
            try:
                engine.start()
                if on_start is not None:
                    on_start()
                return engine.measured(engine.watch())
            finally:
                engine.abort()
    finally:
        remove_data_files(tasks)


class _Processes(Engine):
    """One call of `run_processes`."""

    def __init__(
        self,
        tasks: Sequence[Task],
        awaited: Collection[str],
        patience: Patience,
        on_tick: Callable[[], None] | None,
    ) -> None:
        super().__init__([], awaited, patience, on_tick)
        self._tasks = tasks
        self._processes: dict[str, _Process] = {}
        self._peak_bytes = 0

    def start(self) -> None:
        for task in self._tasks:
            self._processes[task.name] = _Process(task, self.events)
            self.running.add(task.name)

    def stop(self) -> None:
        for name in self.running:
            self._processes[name].terminate()

    def kill(self) -> None:
        for name in self.running:
            self._processes[name].kill()

    def tick(self) -> None:
        resident = sum(self._processes[name].resident_bytes() for name in self.running)
        self._peak_bytes = max(self._peak_bytes, resident)
        super().tick()

    def measured(self, outcome: Outcome) -> Outcome:
        """Returns the outcome with what the tasks used."""
        ends = {name: process.end for name, process in self._processes.items() if process.end is not None}
        return dataclasses.replace(
            outcome,
            cpu_seconds=sum(end.cpu_seconds for end in ends.values()),
            peak_bytes=self._peak_bytes,
            tasks=ends,
        )


class _Process:
    """A started task. Its own thread waits for its end and puts it on the queue."""

    def __init__(self, task: Task, events: queue.SimpleQueue[Ended | Interrupt]) -> None:
        self.end: TaskEnd | None = None
        self._task = task
        self._peak_bytes = 0
        self._killed = False
        self._reaping = threading.Lock()
        self._reaped = False
        guarded = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *task.command]
        task.log_path.parent.mkdir(parents=True, exist_ok=True)
        with task.log_path.open("ab") as log:
            self._log_offset = log.tell()
            # Not closed by a `with`: the waiting thread reaps it.
            self._popen = subprocess.Popen(
                guarded,
                env={**os.environ, **task.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal must reach the launcher alone.
                start_new_session=True,
            )
        threading.Thread(target=self._wait, args=(events,), name=f"wait-{task.name}", daemon=True).start()

    def terminate(self) -> None:
        """Asks the node to stop: Launchpad sets its stop event."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Ends the node and its children at once."""
        self._killed = True
        self._signal(os.killpg, signal.SIGKILL)

    def resident_bytes(self) -> int:
        """Returns the resident size now, and keeps the largest one seen."""
        now, largest = _resident_bytes(self._popen.pid)
        self._peak_bytes = max(self._peak_bytes, largest)
        return now

    def _wait(self, events: queue.SimpleQueue[Ended | Interrupt]) -> None:
        pid = self._popen.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._signal(os.killpg, signal.SIGKILL)  # What the node left behind.
        with self._reaping:
            _, status, usage = os.wait4(pid, 0)
            self._reaped = True
        exit_status = self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.end = TaskEnd(exit_status, usage.ru_utime + usage.ru_stime, self._peak_bytes, self._killed)
        events.put(Ended(self._task.name, self._crash(exit_status), exit_status == STOP_STATUS))

    def _crash(self, exit_status: int) -> Crash | None:
        if exit_status in (0, STOP_STATUS):
            return None
        log_path = self._task.log_path
        message = f"task {self._task.name} crashed: {describe_exit(exit_status)}; log: {log_path}"
        return Crash(message, crash_text(log_path, self._log_offset))

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        # Once the process is reaped, another one may have its number.
        with self._reaping:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    send(self._popen.pid, number)


def _resident_bytes(pid: int) -> tuple[int, int]:
    """Returns a process's resident size and its peak; zeros if it is gone.

    Not the `ru_maxrss` of wait4: a new process starts with its parent's.
    """
    now = largest = 0
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status,
    ):
        for line in status:
            if line.startswith("VmRSS:"):
                now = int(line.split()[1]) * 1024
            elif line.startswith("VmHWM:"):
                largest = int(line.split()[1]) * 1024
    return now, largest
