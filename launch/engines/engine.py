"""What every engine has in common: from what happens to tasks to the run's end.

An engine starts tasks and puts an `Ended` on its queue for each that is over.
Everything else is here: what counts as success, what as failure, which tasks that
died are started again, when tasks are asked to stop, and when they are ended.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import queue
import sys
import time
from collections.abc import Callable, Collection, Mapping

from classact.launch.engines.events import Asked, Crash, Ended, Event
from classact.launch.engines.interrupts import Interrupt, Interrupts, interrupts_to
from classact.launch.engines.outcome import LaunchError, Outcome, TaskEnd
from classact.launch.engines.restarts import RestartPlan, Restarts
from classact.nodes.errors import unwritable

_TICK_SECONDS = 1.0
# What tasks may take to vanish once they are killed: the kernel frees their memory
# first. One that hangs inside the kernel (a lost network disk) never does.
_REAP_SECONDS = 5.0
# Of what a task said last, in a line for the user.
_LAST_WORDS = 200


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long an engine waits, in seconds.

    Attributes:
      stop_notice: from the beginning of a stop to ending what still runs. The awaited
        tasks are asked first: they have all of it, to save their state for instance,
        and the others at least half. A large model needs more than the default. A
        second signal does not wait for it.
      crash_grace: from a crash after which the task is not started again to asking
        the others to stop. If every awaited task succeeds within it, the run is
        completed: a task that ends takes its servers away somewhat before its process
        is gone, and a client may not survive that.
    """

    stop_notice: float = 8.0
    crash_grace: float = 2.0


class Engine(abc.ABC):
    """Watches over the tasks of one run, which a subclass starts and ends.

    Attributes:
      events: takes an `Ended` for each task that is over.
      running: names of the tasks that run.
    """

    def __init__(
        self,
        names: Collection[str],
        awaited: Collection[str],
        patience: Patience,
        on_tick: Callable[[], None] | None,
        restarts: Restarts = Restarts(),  # noqa: B008 - it is frozen.
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts nothing.

        Args:
          names: of the tasks that run already; others are told by `begun`.
          awaited: names of those whose success is the run's.
          patience: how long to wait for them.
          on_tick: see `watch`.
          restarts: which of those that die are started again.
          clock: gives the time in seconds; what `events.get` waits must pass on it.
        """
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.running: set[str] = set()
        self._awaited = set(awaited)
        self._patience = patience
        self._on_tick = on_tick
        self._clock = clock
        self._plan = RestartPlan(restarts, clock)
        self._ends: dict[str, TaskEnd] = {}
        self._succeeded = False
        self._crash: Outcome | None = None
        self._verdict: Outcome | None = None
        self._asked_on_host = False
        self._notice_end = 0.0
        self._others_at: float | None = None
        self._killed = False
        self._deadline: float | None = None
        for name in names:
            self.begun(name)

    @abc.abstractmethod
    def restart(self, name: str) -> None:
        """Starts a task that died on its host, with its addresses and its log; returns at once.

        Raises:
          OSError, LaunchError: if it cannot be started.
        """

    @abc.abstractmethod
    def stop(self, names: Collection[str], notice: float) -> None:
        """Asks running tasks to stop; returns at once.

        Args:
          names: of tasks that were not asked before.
          notice: seconds until they are ended.
        """

    @abc.abstractmethod
    def kill(self) -> None:
        """Ends every running task, where that can be done; returns at once."""

    def end_of(self, name: str) -> TaskEnd | None:
        """What a task used that is over, in this life; None if that is not known."""
        del name
        return None

    def tell_seconds(self) -> float:
        """How long to wait, after the notice, for hosts to end tasks themselves."""
        return 0.0

    def reap_seconds(self) -> float:
        """How long to wait for killed tasks to vanish."""
        return _REAP_SECONDS

    @property
    def stopping(self) -> bool:
        """Whether tasks have been asked to stop."""
        return self._verdict is not None

    def begun(self, name: str) -> None:
        """Notes that a task has been started."""
        self._plan.begin(name)
        self.running.add(name)

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
        - A task crashed before that: it is started again, if `restarts` allow it and
          the crash is not fatal. Else failed, see also `Patience.crash_grace`.
        - A signal to this process before that, or to a task on its host: interrupted.

        The tasks that are left are then asked to stop. If awaited ones are among them,
        the others are asked when those have ended, or after half the notice. What is
        left after the notice is killed, or at once at a second signal. Calls `tick`
        about once a second.

        A task that ended by itself and well is never started again, nor anything once
        all awaited tasks have succeeded; nor an awaited task once another has: they
        end together.

        Returns:
          How it ended, with what the tasks used.
        """
        next_tick = self._clock()
        while (self.running or self._plan.times) and not self._given_up():
            now = self._clock()
            if now >= next_tick:
                next_tick = now + _TICK_SECONDS
                self.tick()
            self._do_what_is_due(now)
            times = [next_tick, self._deadline, self._others_at, *self._plan.times]
            wake = min(time for time in times if time is not None)
            with contextlib.suppress(queue.Empty):
                self._on_event(self.events.get(timeout=max(0.0, wake - self._clock())))
        outcome = self._verdict or self._crash or Outcome("failed", message="the tasks ended by themselves")
        return dataclasses.replace(
            outcome,
            cpu_seconds=sum(end.cpu_seconds for end in self._ends.values()),
            tasks={name: self._ends[name] for name in self._plan.names if name in self._ends},
            stuck=tuple(sorted(self.running)),
            restarts=self._plan.restarts,
        )

    def abort(self) -> None:
        """Ends what is left after an error in the launcher itself; else does nothing."""
        if not self.running or self._given_up():
            return
        self.kill()
        give_up = self._clock() + _REAP_SECONDS
        while self.running and self._clock() < give_up:
            with contextlib.suppress(queue.Empty):
                event = self.events.get(timeout=max(0.0, give_up - self._clock()))
                if isinstance(event, Ended):
                    self.running.discard(event.name)

    def _given_up(self) -> bool:
        return self._killed and self._deadline is None

    def _do_what_is_due(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self._on_deadline()
        if self._others_at is not None and now >= self._others_at:
            self._stop_others()
        while (name := self._plan.due()) is not None:
            self._start_again(name)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Ended):
            self._on_end(event)
        elif isinstance(event, Asked):
            self._on_asked(event.name, event.signal)
        elif self._verdict is None:
            self._stop(self._crash or _interrupted(event))
        elif self._asked_on_host:
            # Not the second one: a cluster signals hosts and launcher in the same breath.
            self._asked_on_host = False
        else:
            self._kill()

    def _on_asked(self, name: str, signal: int) -> None:
        if self._verdict is None:
            self._asked_on_host = True
            self._stop(self._crash or _interrupted(Interrupt(signal), name))

    def _on_end(self, ended: Ended) -> None:
        self.running.discard(ended.name)
        end = self.end_of(ended.name)
        if end is not None:
            self._ends[ended.name] = end.after(self._ends.get(ended.name))
        if self._verdict is not None:
            if self._others_at is not None and not self.running & self._awaited:
                self._stop_others()
        elif ended.signal is not None:
            self._on_asked(ended.name, ended.signal)
        elif ended.stops_run:
            self._stop(self._crash or Outcome("completed"))
        elif ended.crash is not None:
            self._on_crash(ended.name, ended.crash)
        elif ended.name in self._awaited and self.succeeds(ended):
            self._succeeded = True
            self._awaited.discard(ended.name)
            if not self._awaited:
                late = f"at the run's end, {self._crash.message}" if self._crash else ""
                self._stop(Outcome("completed", message=late))

    def _on_crash(self, name: str, crash: Crash) -> None:
        if self._crash is None and not self._starts_again(name, crash):
            before = self._plan.within_hour(name)
            times = "once" if before == 1 else f"{before} times"
            again = f"; it had been started again {times} within the hour" if before else ""
            self._crash = Outcome(
                "failed", name, crash.message + again, crash.traceback, diverged=crash.diverged
            )
            self._deadline = self._clock() + self._patience.crash_grace
            self._plan.cancel()
        if self._crash is not None and name in self._awaited:
            self._stop(self._crash)

    def _starts_again(self, name: str, crash: Crash) -> bool:
        """Plans another start, and says so, if a task that crashed is to have one."""
        if crash.fatal or (name in self._awaited and self._succeeded):
            return False
        planned = self._plan.plan(name)
        if planned is not None:
            last = _last_words(crash.traceback)
            _say(f"{crash.message}{f' ({last})' if last else ''}; {planned}")
        return planned is not None

    def _start_again(self, name: str) -> None:
        self.begun(name)
        try:
            self.restart(name)
        except (OSError, LaunchError) as error:
            self.running.discard(name)
            fatal = unwritable(error) is not None
            self._on_crash(name, Crash(f"task {name} cannot be started again: {error}", "", fatal))

    def _on_deadline(self) -> None:
        if self._killed:
            self._deadline = None
        elif self._verdict is not None:
            self._kill()
        elif self._crash is not None:
            self._stop(self._crash)

    def _stop(self, verdict: Outcome) -> None:
        self._verdict = verdict
        self._plan.cancel()
        now, notice = self._clock(), self._patience.stop_notice
        self._notice_end = now + notice
        self._deadline = self._notice_end + self.tell_seconds()
        first = self.running & self._awaited
        if first:
            self._others_at = now + notice / 2
        self.stop(first or set(self.running), notice)

    def _stop_others(self) -> None:
        self._others_at = None
        others = self.running - self._awaited
        if others:
            self.stop(others, self._notice_end - self._clock())

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            self._others_at = None
            self._deadline = self._clock() + self.reap_seconds()
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


def _last_words(traceback: str) -> str:
    """The line of a traceback that says most: the last one, or Python's own reason for aborting."""
    lines = [line for line in traceback.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    return (fatal or lines or [""])[-1][:_LAST_WORDS]


def _say(line: str) -> None:
    """Tells the user something while the run goes on."""
    # The terminal may have gone, and rich, which may stand in for stderr, then exits.
    with contextlib.suppress(OSError, ValueError, SystemExit):
        print(f"classact: {line}", file=sys.stderr, flush=True)
