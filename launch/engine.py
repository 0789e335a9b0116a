"""What every engine has in common: from what happens to tasks to the run's end.

An engine starts tasks and puts an `Ended` on its queue for each that is over.
Everything else is here: what counts as success, what as failure, when tasks are
asked to stop, and when they are ended.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import queue
import time
from collections.abc import Callable, Collection, Mapping

from classact.launch.interrupts import Interrupt, Interrupts, interrupts_to
from classact.launch.outcome import LaunchError, Outcome

_TICK_SECONDS = 1.0
# What tasks may take to vanish once they are killed: the kernel frees their memory
# first. One that hangs inside the kernel (a lost network disk) never does.
_REAP_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Crash:
    """Why a task failed.

    Attributes:
      message: one line for people.
      traceback: as `Outcome.traceback`.
    """

    message: str
    traceback: str


@dataclasses.dataclass(frozen=True)
class Ended:
    """A task is over.

    Attributes:
      name: the task's name.
      crash: why it failed; None if it did not.
      stops_run: whether it asked for the end of the whole run, by `lp.stop()`.
      signal: number of the signal by which somebody else than the engine had asked
        it to stop on its host, as a cluster does that takes the host away.
    """

    name: str
    crash: Crash | None = None
    stops_run: bool = False
    signal: int | None = None


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long an engine waits, in seconds.

    Attributes:
      stop_notice: from asking a task to stop to ending it. Of the ten seconds in
        which a run must stop, the rest is left to the kernel.
      crash_grace: from a crash to asking the others to stop. If every awaited
        task succeeds within it, the run is completed: a task that ends takes its
        servers away somewhat before its process is gone, and a client may not
        survive that.
    """

    stop_notice: float = 8.0
    crash_grace: float = 2.0


class Engine(abc.ABC):
    """Watches over the tasks of one run, which a subclass starts and ends."""

    def __init__(
        self,
        names: Collection[str],
        awaited: Collection[str],
        patience: Patience,
        on_tick: Callable[[], None] | None,
    ) -> None:
        """Starts nothing.

        Args:
          names: of all tasks.
          awaited: names of those whose success is the run's.
          patience: how long to wait for them.
          on_tick: see `watch`.
        """
        self.events: queue.SimpleQueue[Ended | Interrupt] = queue.SimpleQueue()
        self.running = set(names)
        self._awaited = set(awaited)
        self._patience = patience
        self._on_tick = on_tick
        self._crash: Outcome | None = None
        self._verdict: Outcome | None = None
        self._killed = False
        self._deadline: float | None = None

    @abc.abstractmethod
    def stop(self) -> None:
        """Asks every running task to stop; returns at once."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Ends every running task, where that can be done; returns at once."""

    def reap_seconds(self) -> float:
        """How long to wait for killed tasks to vanish."""
        return _REAP_SECONDS

    @property
    def stopping(self) -> bool:
        """Whether the tasks have been asked to stop."""
        return self._verdict is not None

    def tick(self) -> None:
        """Called about once a second."""
        if self._on_tick is not None:
            self._on_tick()

    def succeeds(self, ended: Ended) -> bool:
        """Whether an end without a crash counts as the task's success."""
        return ended.crash is None

    def interrupts(self) -> contextlib.AbstractContextManager[Interrupts]:
        """Makes signals to this process events of the run; see `interrupts_to`."""
        return interrupts_to(self.events)

    def watch(self) -> Outcome:
        """Waits until all tasks are over, one way or another.

        - Every awaited task succeeded, or a task asked for the end: completed.
        - A task crashed before that: failed, see also `Patience.crash_grace`.
        - A signal to this process before that, or to a task on its host: interrupted.

        The tasks that are left are then asked to stop, and killed after the
        notice, or at once at a second signal. Calls `tick` about once a second.
        """
        next_tick = time.monotonic()
        while self.running and not self._given_up():
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + _TICK_SECONDS
                self.tick()
            if self._deadline is not None and now >= self._deadline:
                self._on_deadline()
            wake = min(next_tick, self._deadline or next_tick)
            with contextlib.suppress(queue.Empty):
                self._on_event(self.events.get(timeout=max(0.0, wake - time.monotonic())))
        outcome = self._verdict or self._crash or Outcome("failed", message="the tasks ended by themselves")
        return dataclasses.replace(outcome, stuck=tuple(sorted(self.running)))

    def abort(self) -> None:
        """Ends what is left after an error in the launcher itself; else does nothing."""
        if not self.running or self._given_up():
            return
        self.kill()
        give_up = time.monotonic() + _REAP_SECONDS
        while self.running and time.monotonic() < give_up:
            with contextlib.suppress(queue.Empty):
                event = self.events.get(timeout=max(0.0, give_up - time.monotonic()))
                if isinstance(event, Ended):
                    self.running.discard(event.name)

    def _given_up(self) -> bool:
        return self._killed and self._deadline is None

    def _on_event(self, event: Ended | Interrupt) -> None:
        if isinstance(event, Ended):
            self._on_end(event)
        elif self._verdict is not None:
            self._kill()
        else:
            self._stop(self._crash or _interrupted(event))

    def _on_end(self, ended: Ended) -> None:
        self.running.discard(ended.name)
        if self._verdict is not None:
            return
        if ended.signal is not None:
            self._stop(self._crash or _interrupted(Interrupt(ended.signal), ended.name))
        elif ended.stops_run:
            self._stop(self._crash or Outcome("completed"))
        elif ended.crash is not None:
            self._on_crash(ended.name, ended.crash)
        elif ended.name in self._awaited and self.succeeds(ended):
            self._awaited.discard(ended.name)
            if not self._awaited:
                late = f"at the run's end, {self._crash.message}" if self._crash else ""
                self._stop(Outcome("completed", message=late))

    def _on_crash(self, name: str, crash: Crash) -> None:
        if self._crash is None:
            text = crash.traceback
            self._crash = Outcome("failed", failed_task=name, message=crash.message, traceback=text)
            self._deadline = time.monotonic() + self._patience.crash_grace
        if name in self._awaited:
            self._stop(self._crash)

    def _on_deadline(self) -> None:
        if self._killed:
            self._deadline = None
        elif self._verdict is not None:
            self._kill()
        elif self._crash is not None:
            self._stop(self._crash)

    def _stop(self, verdict: Outcome) -> None:
        self._verdict = verdict
        self._deadline = time.monotonic() + self._patience.stop_notice
        self.stop()

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            self._deadline = time.monotonic() + self.reap_seconds()
            self.kill()


def _interrupted(interrupt: Interrupt, task: str = "") -> Outcome:
    what = f"stopped by {interrupt.name}" + (f" to task {task} on its host" if task else "")
    return Outcome("interrupted", message=what, signal=interrupt.signal)


def awaited_names(until: Collection[str], labels: Mapping[str, str]) -> set[str]:
    """Returns the names of the tasks that a run waits for.

    Args:
      until: their labels.
      labels: label of every task by its name.

    Raises:
      LaunchError: if `until` is empty or holds something that is no task's label.
    """
    missing = set(until) - set(labels.values())
    if missing or not until:
        known = ", ".join(dict.fromkeys(labels.values()))
        raise LaunchError(f"until = {sorted(until)}: must name labels of the program, which has: {known}")
    return {name for name, label in labels.items() if label in until}
