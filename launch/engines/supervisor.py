"""What every engine has in common: from what happens to tasks to the run's end.

An engine starts tasks and puts an `Ended` on the supervisor's queue for each that is
over. Everything else is here: what counts as success, what as failure, which tasks that
died are started again, when tasks are asked to stop, and when they are ended.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
import queue
import sys
import time
from collections.abc import Callable, Collection, Mapping

from classact.launch.engines.events import Asked, Crash, Ended, Event
from classact.launch.engines.interrupts import Interrupt, Interrupts, interrupts_to
from classact.launch.engines.outcome import LaunchError, Outcome, TaskEnd
from classact.launch.engines.restarts import RestartPlan
from classact.launch.engines.stopping import Stopping
from classact.launch.engines.terms import Terms
from classact.nodes.errors import unwritable

_TICK_SECONDS = 1.0
# Of what a task said last, in a line for the user.
_LAST_WORDS = 200


class Tasks(abc.ABC):
    """What an engine can do with the tasks of one run.

    An `Ended` is put on the supervisor's `events` for each that is over, from whatever thread.

    Attributes:
      tell_seconds: how long to wait, after the notice, for hosts to end tasks themselves.
      reap_seconds: what tasks may take to vanish once they are killed: the kernel frees their
        memory first. One that hangs inside the kernel (a lost network disk) never does.
    """

    tell_seconds: float = 0.0
    reap_seconds: float = 5.0

    @abc.abstractmethod
    def start(self, name: str) -> None:
        """Starts a task, or starts it again where it was, with its addresses and log; returns at once.

        Raises:
          OSError, LaunchError: if it cannot be started.
        """

    @abc.abstractmethod
    def stop(self, names: Collection[str], notice: float) -> None:
        """Asks running tasks to stop; returns at once.

        Args:
          names: of tasks; one that is asked to stop for good may have been asked before, to be
            started again.
          notice: seconds until they are ended.
        """

    @abc.abstractmethod
    def kill(self, names: Collection[str]) -> None:
        """Ends running tasks, where that can be done; returns at once."""

    def end_of(self, name: str) -> TaskEnd | None:
        """What a task used that is over, in this life; None if that is not known."""
        del name
        return None

    def look(self, names: Collection[str]) -> None:
        """Called about once a second with the names of the running tasks; must not block."""
        del names


class Supervisor:
    """Watches over the tasks of one run.

    Attributes:
      events: takes an `Ended` for each task that is over.
      running: names of the tasks that run.
    """

    def __init__(
        self,
        tasks: Tasks,
        labels: Mapping[str, str],
        terms: Terms,
        events: queue.SimpleQueue[Event],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts nothing.

        Args:
          tasks: starts, stops and ends them.
          labels: of all tasks by their names, in the order in which they are started.
          terms: how they are run.
          events: its queue; signals to this process are put there too.
          clock: gives the time in seconds; what `events.get` waits must pass on it.

        Raises:
          LaunchError: if a label of `terms.until` is no task's.
        """
        self.events = events
        self.running: set[str] = set()
        self._tasks = tasks
        self._labels = labels
        self._awaited = terms.awaited(labels)
        self._terms = terms
        self._clock = clock
        self._plan = RestartPlan(terms.restarts, clock)
        self._stopping = Stopping(
            self._awaited,
            terms.patience,
            clock,
            tasks.stop,
            tasks.kill,
            tasks.tell_seconds,
            tasks.reap_seconds,
        )
        self._ends: dict[str, TaskEnd] = {}
        self._succeeded = False
        self._crash: Outcome | None = None
        self._grace_end: float | None = None
        self._verdict: Outcome | None = None
        self._asked_on_host = False
        # Asked to stop so that they are started again, with when they are ended if they do not;
        # and when that was tried, by what was lacking.
        self._renewed: dict[str, float] = {}
        self._tried: dict[str, float] = {}

    def run(self) -> Outcome:
        """Starts all tasks and watches over them until they are over; nothing is left then.

        Returns:
          How it ended, with what the tasks used.

        Raises:
          OSError, LaunchError: if a task cannot be started.
        """
        try:
            for name in self._labels:
                self._tasks.start(name)
                self._begun(name)
            self._terms.on_start()
            return self.watch()
        finally:
            self.abort()

    def interrupts(self) -> contextlib.AbstractContextManager[Interrupts]:
        """Makes signals to this process events of the run; see `interrupts_to`."""
        return interrupts_to(self.events)

    def watch(self) -> Outcome:
        """Waits until all tasks are over, one way or another.

        - Every awaited task succeeded, or a task asked for the end: completed.
        - A task crashed before that: it is started again, if the terms allow it and
          the crash is not fatal. Else failed, see also `Patience.crash_grace`.
        - A signal to this process before that, or to a task on its host: interrupted.

        The tasks that are left are then asked to stop, see `Stopping`, and ended at once
        at a second signal.

        A task that ended by itself and well is never started again, nor anything once
        all awaited tasks have succeeded; nor an awaited task once another has: they
        end together.
        """
        next_tick = self._clock()
        while (self.running or self._plan.times) and not self._stopping.given_up:
            if self._clock() >= next_tick:
                next_tick = self._clock() + _TICK_SECONDS
                self._tasks.look(set(self.running))
                self._terms.on_tick()
            self._do_what_is_due()
            times = [*self._stopping.times, *self._plan.times, *self._renewed.values()]
            wake = min([next_tick, *times, self._grace_end or next_tick])
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
        if not self.running or self._stopping.given_up:
            return
        self._tasks.kill(set(self.running))
        give_up = self._clock() + self._tasks.reap_seconds
        while self.running and self._clock() < give_up:
            with contextlib.suppress(queue.Empty):
                event = self.events.get(timeout=max(0.0, give_up - self._clock()))
                if isinstance(event, Ended):
                    self.running.discard(event.name)

    def _begun(self, name: str) -> None:
        self._plan.begin(name)
        self.running.add(name)

    def _do_what_is_due(self) -> None:
        if self._grace_end is not None and self._clock() >= self._grace_end and self._crash is not None:
            self._stop(self._crash)
        self._stopping.advance(self.running)
        deaf = {name for name, at in self._renewed.items() if at <= self._clock()}
        if deaf:
            # Once is enough; what hangs in the kernel ends when it does not any more.
            self._renewed |= dict.fromkeys(deaf, math.inf)
            self._tasks.kill(deaf)
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
            self._stopping.hurry(set(self.running))

    def _on_asked(self, name: str, signal: int) -> None:
        if self._verdict is None:
            self._asked_on_host = True
            self._stop(self._crash or _interrupted(Interrupt(signal), name))

    def _on_end(self, ended: Ended) -> None:
        self.running.discard(ended.name)
        end = self._tasks.end_of(ended.name)
        if end is not None:
            self._ends[ended.name] = end.after(self._ends.get(ended.name))
        if self._verdict is not None:
            self._stopping.on_end(self.running)
        elif ended.signal is not None:
            self._on_asked(ended.name, ended.signal)
        elif ended.stops_run:
            self._stop(self._crash or Outcome("completed"))
        elif ended.name in self._renewed:
            del self._renewed[ended.name]
            self._on_crash(ended.name, ended.crash or Crash(f"task {ended.name} was asked to stop", ""))
        elif ended.crash is not None:
            self._on_crash(ended.name, ended.crash)
        elif ended.name in self._awaited:
            self._succeeded = True
            self._awaited.discard(ended.name)
            if not self._awaited:
                late = f"at the run's end, {self._crash.message}" if self._crash else ""
                self._stop(Outcome("completed", message=late))

    def _on_crash(self, name: str, crash: Crash) -> None:
        if crash.lacks:
            tried = self._tried_at(crash.lacks)
            if tried is None:
                self._renew(crash.lacks)
            # Not another host of the same learner, which misses what the first one has missed.
            elif self._plan.began(name) >= tried:
                crash = dataclasses.replace(crash, fatal=True)
        if self._crash is None and not self._starts_again(name, crash):
            before = self._plan.within_hour(name)
            times = "once" if before == 1 else f"{before} times"
            again = f"; it had been started again {times} within the hour" if before else ""
            self._crash = Outcome(
                "failed", name, crash.message + again, crash.traceback, diverged=crash.diverged
            )
            self._grace_end = self._clock() + self._terms.patience.crash_grace
            self._plan.cancel()
        if self._crash is not None and name in self._awaited:
            self._stop(self._crash)

    def _tried_at(self, what: str) -> float | None:
        """When all that should deliver something was last started again; None if that is long ago."""
        tried = self._tried.get(what)
        return tried if tried is not None and self._clock() - tried < self._terms.lack_seconds else None

    def _renew(self, what: str) -> None:
        """Asks all tasks that should deliver something to stop, to start them again."""
        self._tried[what] = self._clock()
        late = {name for name in self.running if self._labels[name].partition("/")[2] == what}
        late -= self._awaited | set(self._renewed)
        if late and self._terms.restarts.per_hour and self._crash is None:
            _say(f"{', '.join(sorted(late))} deliver nothing, and are started again")
            notice = self._terms.patience.stop_notice
            self._renewed |= dict.fromkeys(late, self._clock() + notice + self._tasks.tell_seconds)
            self._tasks.stop(late, notice)

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
        self._begun(name)
        try:
            self._tasks.start(name)
        except (OSError, LaunchError) as error:
            self.running.discard(name)
            fatal = unwritable(error) is not None
            self._on_crash(name, Crash(f"task {name} cannot be started again: {error}", "", fatal))

    def _stop(self, verdict: Outcome) -> None:
        self._verdict = verdict
        self._grace_end = None
        self._plan.cancel()
        self._renewed.clear()
        self._stopping.begin(self.running)


def _interrupted(interrupt: Interrupt, task: str = "") -> Outcome:
    what = f"stopped by {interrupt.name}" + (f" to task {task} on its host" if task else "")
    return Outcome("interrupted", message=what, signal=interrupt.signal)


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
