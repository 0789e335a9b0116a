"""`--launch=threads`: runs nodes as threads of this process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from classact.launch.engines import supervisor
from classact.launch.engines.events import Crash, Ended, Event
from classact.launch.engines.interface import Engine, Job
from classact.launch.engines.outcome import LaunchError, Outcome
from classact.launch.engines.ports import LoopbackPorts
from classact.launch.engines.resources import proxy_exceptions
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.sockets import PrivateSockets
from classact.launch.engines.task import STOP_STATUS
from classact.launch.engines.terms import Terms
from classact.nodes.errors import DivergedError

Function = Callable[[threading.Event], Any]


class Threads(Engine):
    """Every node is a thread of this process."""

    one_process = True

    def run(self, job: Job) -> Outcome:
        """See `run_threads`."""
        with LoopbackPorts() as ports, PrivateSockets() as sockets:
            return run_threads(job.make_threads(ports, sockets), job.labels, job.terms)


def run_threads(functions: Mapping[str, Function], labels: Mapping[str, str], terms: Terms) -> Outcome:
    """Runs nodes in this process until the awaited ones have ended.

    A node succeeds if its function returns, or leaves by `sys.exit(0)`; another
    exception is a crash, and `sys.exit(STOP_STATUS)` asks for the end of the run.
    `Supervisor.watch` says what follows; but no node is started again. A thread cannot be
    ended from outside: a node that does not stop within the notice, or still runs at a
    second signal, is named in `Outcome.stuck`. A process with such threads should end by
    `os._exit`.

    Blocks until all is over; call it from the main thread.

    Args:
      functions: of each node by its name; must end soon after the event that it is given.
      labels: of each node by its name.
      terms: how to run them.

    Returns:
      How the run ended; its `cpu_seconds` are those of the whole process during
      the run.

    Raises:
      LaunchError: before anything is started, if a label of `terms.until` is no node's.
      RuntimeError: outside the main thread.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    started = time.process_time()
    threads = _Threads(functions, events)
    terms = dataclasses.replace(terms, restarts=Restarts())
    watcher = supervisor.Supervisor(threads, {name: labels[name] for name in functions}, terms, events)
    with watcher.interrupts(), _environment(proxy_exceptions([])):
        outcome = watcher.run()
    return dataclasses.replace(outcome, cpu_seconds=time.process_time() - started)


class _Threads(supervisor.Tasks):
    """The nodes of one run: each has a stop event of its own, so that they can be asked one by one."""

    # There is nothing to wait for: threads cannot be killed.
    reap_seconds = 0.0

    def __init__(self, functions: Mapping[str, Function], events: queue.SimpleQueue[Event]) -> None:
        self._functions = functions
        self._events = events
        self._stops: dict[str, threading.Event] = {}

    def start(self, name: str) -> None:
        if name in self._stops:
            raise LaunchError(f"node {name}: threads are not started again")
        self._stops[name] = threading.Event()
        arguments = (self._events, name, self._functions[name], self._stops[name])
        threading.Thread(target=_run, args=arguments, name=name, daemon=True).start()

    def stop(self, names: Collection[str], notice: float) -> None:
        for name in names:
            self._stops[name].set()

    def kill(self, names: Collection[str]) -> None:
        """Asks those that were not asked yet: more cannot be done."""
        self.stop(names, 0.0)


def _run(events: queue.SimpleQueue[Event], name: str, function: Function, stop: threading.Event) -> None:
    """A node's thread."""
    try:
        function(stop)
    except SystemExit as leave:
        crash = None if leave.code in (None, 0, STOP_STATUS) else _crash(name, leave)
        events.put(Ended(name, crash, leave.code == STOP_STATUS))
    except BaseException as error:  # A node may raise anything, and all of it is reported.
        events.put(Ended(name, _crash(name, error)))
    else:
        events.put(Ended(name))


def _crash(name: str, error: BaseException) -> Crash:
    text = "".join(traceback.format_exception(error)).rstrip()
    diverged = error.step if isinstance(error, DivergedError) else None
    why = str(error) if diverged is not None else f"{type(error).__name__}: {error}"
    return Crash(f"task {name} crashed: {why}", text, diverged=diverged)


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
