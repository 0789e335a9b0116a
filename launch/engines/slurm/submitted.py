"""A submitted Slurm job, followed from outside to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import signal
import time
from pathlib import Path
from typing import Any

from classact.launch.engines.interrupts import Interrupt
from classact.launch.engines.outcome import LaunchError, Outcome
from classact.launch.engines.slurm import info as slurm_info

_TICK_SECONDS = 0.5
_STATE_SECONDS = 5.0
# A shared file system may show a file late.
_LATE_FILE_SECONDS = 5.0


class SubmittedJob:
    """A submitted job, from the outside."""

    def __init__(self, job_id: str, workdir: Path, events: queue.SimpleQueue[Any], notice: float) -> None:
        """Takes a job that has just been submitted.

        Args:
          job_id: of the job.
          workdir: the run directory.
          events: takes an `Interrupt` for each signal to this process.
          notice: seconds from asking the job to stop to cancelling it.
        """
        self._job_id = job_id
        self._notice = notice
        self._result = workdir / "result.json"
        # Of an attempt before this job, in the same directory.
        self._earlier = _modified(self._result)
        self._folder = workdir / "slurm"
        self._events = events
        self._state = slurm_info.JobState("PENDING")
        self._signal: int | None = None
        self._cancel_at: float | None = None

    def follow(self) -> Outcome:
        """Waits until the job has ended; see `slurm_job.run_job`."""
        ask_at = 0.0
        while not self._state.is_over:
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=_TICK_SECONDS)
                if event.signal == signal.SIGHUP:
                    return Outcome("interrupted", message=f"job {self._job_id} goes on", signal=event.signal)
                self._on_interrupt(event)
            now = time.monotonic()
            if self._cancel_at is not None and now >= self._cancel_at:
                self._cancel_at = None
                self._scancel()
            # Once a job that runs has a result, its end is near.
            if now >= ask_at or (self._has_result() and not self._state.is_queued):
                ask_at = now + _STATE_SECONDS
                self._look()
        return self._outcome()

    def _look(self) -> None:
        try:
            state = slurm_info.job_state(self._job_id)
        except LaunchError as error:
            # The controller may be away for a while; the job is not.
            state = dataclasses.replace(self._state, reason=str(error))
        if str(state) != str(self._state) and not state.is_over:
            print(f"job {self._job_id}: {state}", flush=True)
        self._state = state
        if self._signal is not None and state.is_queued:
            # Stopped, and put into the queue again for its exit status.
            self._scancel()

    def _has_result(self) -> bool:
        return _modified(self._result) not in (None, self._earlier)

    def _on_interrupt(self, interrupt: Interrupt) -> None:
        if self._signal is not None:
            self._scancel()
            return
        self._signal = interrupt.signal
        self._cancel_at = time.monotonic() + self._notice
        print(f"{interrupt.name}: asking job {self._job_id} to stop", flush=True)
        # It may start in between, so both: each is for one state.
        self._scancel("--state=PENDING")
        self._scancel("--batch", "--signal=TERM")

    def _scancel(self, *options: str) -> None:
        # If the controller is away, or the job has just ended: what it says next tells.
        with contextlib.suppress(LaunchError):
            slurm_info.ask("scancel", *options, self._job_id)

    def _outcome(self) -> Outcome:
        deadline = time.monotonic() + _LATE_FILE_SECONDS
        while not self._has_result() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=_TICK_SECONDS)
        said = _text(self._folder / f"{self._job_id}.err")
        if not self._has_result():
            ended = f"job {self._job_id} ended without a result: {self._state}"
            if self._state.exit_code not in ("", "0:0"):
                ended += f", exit code {self._state.exit_code}"
            if self._signal is not None:
                return Outcome("interrupted", message=ended, signal=self._signal)
            return Outcome("failed", message=ended, traceback=said)
        result = json.loads(self._result.read_text())
        if result["status"] == "interrupted":
            number = self._signal or signal.SIGTERM
            return Outcome("interrupted", message=result["message"], signal=number)
        if result["status"] == "failed":
            # It has said there all that is to be said.
            return Outcome("failed", message="" if said else result["message"], traceback=said)
        return Outcome("completed", message=result["message"])


def _modified(path: Path) -> int | None:
    """When a file was last written; None if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").rstrip()
    except FileNotFoundError:
        return ""
