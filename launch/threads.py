"""Runs a program as threads of this process, through `lp.launch`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import launchpad as lp
from absl import flags
from launchpad.launch.worker_manager import WorkerManager

from classact.launch.interrupts import Interrupt, interrupts_to
from classact.launch.outcome import LaunchError, Outcome
from classact.launch.resources import proxy_exceptions
from classact.launch.tasks import STOP_STATUS, endpoints, stop_program, task_names

_TICK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class _Ended:
    """A node's function returned, or raised `error`."""

    name: str
    error: BaseException | None


def run_threads(
    program: lp.Program,
    *,
    until: Collection[str],
    stop_notice_seconds: float = 8.0,
    on_start: Callable[[dict[str, list[str]]], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Runs a program in this process until the awaited nodes have ended.

    The meaning of completed, failed and interrupted is that of `run_processes`,
    but a thread cannot be ended from outside: a node that does not stop within
    the notice is named in `Outcome.stuck`, and so are all that still run after
    a second signal. A process with such threads should end by `os._exit`.

    Blocks until all is over; call it from the main thread. May be called again,
    with another program: Launchpad's nodes keep what they built.

    Args:
      program: what to run.
      until: labels whose nodes' successful end is the end of the run.
      stop_notice_seconds: how long nodes may take to stop.
      on_start: called once with the program's `endpoints`, when all are started.
      on_tick: called about once a second while the nodes run; must not block.

    Returns:
      How the run ended; its `cpu_seconds` are those of the whole process during
      the run.

    Raises:
      LaunchError: before anything is started, if no node has a label of `until`
        or a label is unusable.
      RuntimeError: outside the main thread.
    """
    names = task_names(program)
    missing = set(until) - set(program.groups)
    if missing or not until:
        labels = ", ".join(program.groups)
        raise LaunchError(f"until = {sorted(until)}: must name labels of the program, which has: {labels}")
    awaited = {name for (label, _), name in names.items() if label in until}
    started = time.process_time()
    events: queue.SimpleQueue[_Ended | Interrupt] = queue.SimpleQueue()
    with interrupts_to(events) as interrupts, _environment(proxy_exceptions([])):
        with _reporting_to(events, program, names), _launchpad_flags():
            manager = lp.launch(program, launch_type=lp.LaunchType.LOCAL_MULTI_THREADING)
        interrupts.install()  # lp.launch took the signals over.
        run = _Run(events, manager, set(names.values()), awaited, stop_notice_seconds, on_tick)
        try:
            if on_start is not None:
                on_start(endpoints(program))
            outcome = run.watch()
        finally:
            run.end()
    return dataclasses.replace(outcome, cpu_seconds=time.process_time() - started)


class _Run:
    """One call of `run_threads`."""

    def __init__(
        self,
        events: queue.SimpleQueue[_Ended | Interrupt],
        manager: WorkerManager,
        running: set[str],
        awaited: set[str],
        notice: float,
        on_tick: Callable[[], None] | None,
    ) -> None:
        self._events = events
        self._manager = manager
        self._running = running
        self._awaited = awaited
        self._notice = notice
        self._on_tick = on_tick
        self._verdict: Outcome | None = None
        self._deadline: float | None = None

    def watch(self) -> Outcome:
        """Handles events until every node has ended, or the notice is over."""
        next_tick = time.monotonic()
        while self._running:
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                break
            if now >= next_tick:
                next_tick = now + _TICK_SECONDS
                if self._on_tick is not None:
                    self._on_tick()
            event = self._next_event(min(next_tick, self._deadline or next_tick))
            if isinstance(event, Interrupt):
                self._on_interrupt(event)
            elif event is not None:
                self._on_end(event)
        return dataclasses.replace(self._final_verdict(), stuck=tuple(sorted(self._running)))

    def end(self) -> None:
        """Stops what still runs, and lets the interpreter exit in spite of it."""
        if self._verdict is None:
            self._ask_to_stop()
        _forget_workers(self._manager)

    def _next_event(self, until: float) -> _Ended | Interrupt | None:
        try:
            return self._events.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def _on_interrupt(self, interrupt: Interrupt) -> None:
        if self._verdict is not None:
            self._deadline = time.monotonic()
            return
        self._stop(Outcome("interrupted", message=f"stopped by {interrupt.name}", signal=interrupt.signal))

    def _on_end(self, end: _Ended) -> None:
        self._running.discard(end.name)
        if self._verdict is not None:
            return
        if isinstance(end.error, SystemExit) and end.error.code == STOP_STATUS:
            self._stop(Outcome("completed"))
        elif end.error is not None:
            text = "".join(traceback.format_exception(end.error)).rstrip()
            message = f"task {end.name} crashed: {type(end.error).__name__}: {end.error}"
            self._stop(Outcome("failed", failed_task=end.name, message=message, traceback=text))
        elif not self._awaited & self._running and not self._manager.stop_event().is_set():
            # Were the stop event set, a colocated node would have crashed, and its
            # report would be on its way: that end is no success.
            self._stop(Outcome("completed"))

    def _stop(self, verdict: Outcome) -> None:
        self._verdict = verdict
        self._deadline = time.monotonic() + self._notice
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        # It waits for the nodes without a limit, hence a thread of its own.
        threading.Thread(target=self._manager.stop_and_wait, name="stop-nodes", daemon=True).start()

    def _final_verdict(self) -> Outcome:
        if self._verdict is not None:
            return self._verdict
        return Outcome("failed", message="the nodes were stopped from within the program")


def _report(events: queue.SimpleQueue[Any], name: str, node: lp.PyNode, function: Callable[[], Any]) -> None:
    """A node's thread: never lets an exception reach Launchpad, which would print it late."""
    # Launchpad's own way for `lp.stop()` to end the run is to send this process SIGTERM.
    node.launch_context.initialize(lp.LaunchType.LOCAL_MULTI_THREADING, None, stop_program)
    try:
        function()
    except SystemExit as error:
        events.put(_Ended(name, None if error.code in (None, 0) else error))
    except BaseException as error:  # A node may raise anything, and all of it is reported.
        events.put(_Ended(name, error))
    else:
        events.put(_Ended(name, None))


@contextlib.contextmanager
def _reporting_to(
    events: queue.SimpleQueue[Any], program: lp.Program, names: Mapping[tuple[str, int], str]
) -> Iterator[None]:
    """Makes the nodes that are launched inside report their ends.

    Launchpad's own way, `WorkerManager.wait`, polls, and does not say which node
    raised. A node's function is read once, by `lp.launch`, and is private.
    """
    nodes = {names[label, i]: node for label, group in program.groups.items() for i, node in enumerate(group)}
    functions = {name: node.function for name, node in nodes.items()}
    for name, node in nodes.items():
        node._partial_function = functools.partial(_report, events, name, node, functions[name])
    try:
        yield
    finally:
        for name, node in nodes.items():
            node._partial_function = functions[name]


@contextlib.contextmanager
def _launchpad_flags() -> Iterator[None]:
    """Flags under which Launchpad's worker manager neither kills nor takes SIGTERM."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    wanted: dict[str, Any] = {"lp_termination_notice_secs": -1, "lp_worker_manager_registers_signals": False}
    before: dict[str, Any] = {name: flags.FLAGS[name].value for name in wanted}
    try:
        for name, value in wanted.items():
            flags.FLAGS[name].value = value
        yield
    finally:
        for name, value in before.items():
            flags.FLAGS[name].value = value


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _forget_workers(manager: WorkerManager) -> None:
    """Keeps Launchpad's hook at the interpreter's exit from waiting for stuck nodes.

    There is no public way: the hook is `manager.wait`, which waits for all workers.
    """
    # Not for ever: a user's stop handler may hang while Launchpad holds this lock.
    if manager._mutex.acquire(timeout=1.0):
        try:
            manager._active_workers.clear()
        finally:
            manager._mutex.release()
