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
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from classact.launch.crash_report import crash_text, describe_exit
from classact.launch.interrupts import Interrupt, interrupts_to
from classact.launch.outcome import LaunchError, Outcome, TaskEnd
from classact.launch.ports import check_closed
from classact.launch.tasks import STOP_STATUS, Task, remove_data_files

_GUARD = Path(__file__).with_name("guard.py")
_TICK_SECONDS = 1.0
# What the kernel may take to end a killed process: it frees its memory first. One
# that hangs inside the kernel (a lost network disk) does not end at all.
_REAP_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class _Ended:
    """A task's process is gone, and so is all that it left in its process group."""

    name: str
    exit_status: int
    cpu_seconds: float


class _Process:
    """A started task. Its own thread waits for its end and puts it on the queue."""

    def __init__(self, task: Task, events: queue.SimpleQueue[_Ended | Interrupt]) -> None:
        self.task = task
        self.peak_bytes = 0
        self.killed = False
        self.end: _Ended | None = None
        self._reaping = threading.Lock()
        self._reaped = False
        guarded = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *task.command]
        task.log_path.parent.mkdir(parents=True, exist_ok=True)
        with task.log_path.open("ab") as log:
            self.log_offset = log.tell()
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

    def _wait(self, events: queue.SimpleQueue[_Ended | Interrupt]) -> None:
        pid = self._popen.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._signal(os.killpg, signal.SIGKILL)  # What the node left behind.
        with self._reaping:
            _, status, usage = os.wait4(pid, 0)
            self._reaped = True
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        events.put(_Ended(self.task.name, self._popen.returncode, usage.ru_utime + usage.ru_stime))

    def terminate(self) -> None:
        """Asks the node to stop: Launchpad sets its stop event."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Ends the node and its children at once."""
        self.killed = True
        self._signal(os.killpg, signal.SIGKILL)

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        # Once the process is reaped, another one may have its number.
        with self._reaping:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    send(self._popen.pid, number)

    def resident_bytes(self) -> int:
        """Returns the resident size now, and keeps the largest one seen."""
        now, largest = _resident_bytes(self._popen.pid)
        self.peak_bytes = max(self.peak_bytes, largest)
        return now


def run_processes(
    tasks: Sequence[Task],
    *,
    until: Collection[str],
    stop_notice_seconds: float = 8.0,
    on_start: Callable[[], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Runs tasks on this machine until the awaited ones have ended.

    - Every task of a label in `until` ended with status 0: the run is completed.
    - A task ended with another status before that: the run failed, with that
      task's traceback. (Other tasks may end with status 0 at any time.)
    - SIGINT, SIGTERM or SIGHUP to this process: interrupted.
    - A task called `lp.stop()`: completed.

    In each case the tasks that are left get SIGTERM, which sets Launchpad's stop
    event in them, and SIGKILL after the notice; a second signal to this process
    kills them at once. If this process dies, the kernel kills them all. Nothing
    outlives the call: neither processes, nor what they left in their process
    groups, nor the tasks' data files. Output goes to each task's log.

    Blocks until all is over; call it from the main thread.

    Args:
      tasks: what to run, from `make_tasks`.
      until: labels whose tasks' successful end is the end of the run.
      stop_notice_seconds: time between SIGTERM and SIGKILL.
      on_start: called once, when all tasks are started.
      on_tick: called about once a second while the tasks run; must not block.

    Returns:
      How the run ended.

    Raises:
      LaunchError: before anything is started, if no task has a label of `until`,
        or if something already listens on a task's address (PortTakenError).
    """
    missing = set(until) - {task.label for task in tasks}
    if missing or not until:
        labels = ", ".join(dict.fromkeys(task.label for task in tasks))
        raise LaunchError(f"until = {sorted(until)}: must name labels of the program, which has: {labels}")
    events: queue.SimpleQueue[_Ended | Interrupt] = queue.SimpleQueue()
    try:
        check_closed((task.name, address) for task in tasks for address in task.addresses)
        with interrupts_to(events):
            run = _Run(events, until, stop_notice_seconds, on_tick)
            try:
                run.start(tasks)
                if on_start is not None:
                    on_start()
                return run.watch()
            finally:
                run.kill_and_reap()
    finally:
        remove_data_files(tasks)


class _Run:
    """One call of `run_processes`."""

    def __init__(
        self,
        events: queue.SimpleQueue[_Ended | Interrupt],
        until: Collection[str],
        notice: float,
        on_tick: Callable[[], None] | None,
    ) -> None:
        self._events = events
        self._until = until
        self._notice = notice
        self._on_tick = on_tick
        self._processes: dict[str, _Process] = {}
        self._verdict: Outcome | None = None
        self._deadline: float | None = None
        self._killed_at: float | None = None
        self._peak_bytes = 0

    def start(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._processes[task.name] = _Process(task, self._events)

    def watch(self) -> Outcome:
        """Handles events until every process has ended."""
        next_tick = time.monotonic()
        while self._alive():
            now = time.monotonic()
            if self._killed_at is not None and now >= self._killed_at + _REAP_SECONDS:
                break
            if now >= next_tick:
                next_tick = now + _TICK_SECONDS
                self._tick()
            if self._deadline is not None and now >= self._deadline:
                self._kill()
            event = self._next_event(min(next_tick, self._deadline or next_tick))
            if isinstance(event, Interrupt):
                self._on_interrupt(event)
            elif event is not None:
                self._on_end(event)
        return self._outcome()

    def kill_and_reap(self) -> None:
        """Leaves no process behind, also when an exception ends the run."""
        if not self._alive():
            return
        self._kill()
        give_up = time.monotonic() + _REAP_SECONDS
        while self._alive() and time.monotonic() < give_up:
            event = self._next_event(give_up)
            if isinstance(event, _Ended):
                self._processes[event.name].end = event

    def _alive(self) -> list[_Process]:
        return [process for process in self._processes.values() if process.end is None]

    def _next_event(self, until: float) -> _Ended | Interrupt | None:
        try:
            return self._events.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def _tick(self) -> None:
        resident = sum(process.resident_bytes() for process in self._alive())
        self._peak_bytes = max(self._peak_bytes, resident)
        if self._on_tick is not None:
            self._on_tick()

    def _on_interrupt(self, interrupt: Interrupt) -> None:
        if self._verdict is not None:
            self._kill()
            return
        self._stop(Outcome("interrupted", message=f"stopped by {interrupt.name}", signal=interrupt.signal))

    def _on_end(self, end: _Ended) -> None:
        process = self._processes[end.name]
        process.end = end
        if self._verdict is not None:
            return
        if end.exit_status == STOP_STATUS:
            self._stop(Outcome("completed"))
        elif end.exit_status != 0:
            message = (
                f"task {end.name} crashed: {describe_exit(end.exit_status)}; log: {process.task.log_path}"
            )
            text = crash_text(process.task.log_path, process.log_offset)
            self._stop(Outcome("failed", failed_task=end.name, message=message, traceback=text))
        elif all(p.end for p in self._processes.values() if p.task.label in self._until):
            self._stop(Outcome("completed"))

    def _stop(self, verdict: Outcome) -> None:
        self._verdict = verdict
        self._deadline = time.monotonic() + self._notice
        for process in self._alive():
            process.terminate()

    def _kill(self) -> None:
        self._deadline = None
        self._killed_at = time.monotonic()
        for process in self._alive():
            process.kill()

    def _outcome(self) -> Outcome:
        assert self._verdict is not None
        ends = {
            name: TaskEnd(
                exit_status=process.end.exit_status,
                cpu_seconds=process.end.cpu_seconds,
                peak_bytes=process.peak_bytes,
                killed=process.killed,
            )
            for name, process in self._processes.items()
            if process.end is not None
        }
        return dataclasses.replace(
            self._verdict,
            cpu_seconds=sum(end.cpu_seconds for end in ends.values()),
            peak_bytes=self._peak_bytes,
            tasks=ends,
            stuck=tuple(process.task.name for process in self._alive()),
        )


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
