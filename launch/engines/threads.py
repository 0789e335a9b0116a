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

from absl import flags

from classact.launch.assembly.launchpad import lp, worker_manager
from classact.launch.assembly.tasks import bind, endpoints, stop_program, task_names
from classact.launch.engines.engine import Engine, Patience, awaited_names
from classact.launch.engines.events import Crash, Ended, Event
from classact.launch.engines.outcome import LaunchError, Outcome
from classact.launch.engines.ports import LOOPBACK, LoopbackPorts
from classact.launch.engines.resources import proxy_exceptions
from classact.launch.engines.sockets import PrivateSockets
from classact.launch.engines.task import STOP_STATUS
from classact.nodes.errors import DivergedError


def run_threads(
    program: lp.Program,
    *,
    until: Collection[str],
    patience: Patience = Patience(),  # noqa: B008 - it is frozen.
    on_start: Callable[[dict[str, list[str]]], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Runs a program in this process until the awaited nodes have ended.

    A node succeeds if its function returns, or leaves by `sys.exit(0)`; another
    exception is a crash. `Engine.watch` says what follows; but no node is started
    again. A thread cannot be ended from outside: a node that does not stop within the
    notice, or still runs at a second signal, is named in `Outcome.stuck`. A process
    with such threads should end by `os._exit`.

    Blocks until all is over; call it from the main thread. May be called again,
    with another program: Launchpad's nodes keep what they built.

    Args:
      program: what to run.
      until: labels whose nodes' success is the end of the run.
      patience: how long to wait for nodes to stop.
      on_start: called once with the program's `endpoints`, when all are started.
      on_tick: called about once a second while the nodes run; must not block.

    Returns:
      How the run ended; its `cpu_seconds` are those of the whole process during
      the run.

    Raises:
      LaunchError: before anything is started, if a label of `until` is no node's,
        or a label is unusable.
      RuntimeError: outside the main thread.
    """
    names = task_names(program)
    awaited = awaited_names(until, {name: label for (label, _), name in names.items()})
    started = time.process_time()
    engine = _Threads(names.values(), awaited, patience, on_tick)
    with (
        engine.interrupts() as interrupts,
        _environment(proxy_exceptions([])),
        LoopbackPorts() as ports,
        PrivateSockets() as sockets,
    ):
        with (
            _reporting_to(engine.events, program, names, engine.stops),
            _addresses_from(ports, sockets, program, names),
            _launchpad_flags(),
        ):
            engine.manager = lp.launch(program, launch_type=lp.LaunchType.LOCAL_MULTI_THREADING)
        interrupts.install()  # lp.launch took the signals over.
        try:
            if on_start is not None:
                on_start(endpoints(program))
            outcome = engine.watch()
        finally:
            engine.abort()
            _forget_workers(engine.manager)
    return dataclasses.replace(outcome, cpu_seconds=time.process_time() - started)


class _Threads(Engine):
    """One call of `run_threads`."""

    manager: worker_manager.WorkerManager

    def __init__(
        self,
        names: Collection[str],
        awaited: Collection[str],
        patience: Patience,
        on_tick: Callable[[], None] | None,
    ) -> None:
        super().__init__(names, awaited, patience, on_tick)
        # Launchpad has one stop event for all threads: it is the awaited nodes' own.
        self.stops = {name: threading.Event() for name in set(names) - set(awaited)}
        self._begun_to_stop = False

    def restart(self, name: str) -> None:
        raise LaunchError(f"node {name}: threads are not started again")

    def stop(self, names: Collection[str], notice: float) -> None:
        if not self._begun_to_stop:
            self._begun_to_stop = True
            # It waits for the nodes without a limit, hence a thread of its own.
            threading.Thread(target=self.manager.stop_and_wait, name="stop-nodes", daemon=True).start()
        for name in set(names) & set(self.stops):
            self.stops[name].set()

    def kill(self) -> None:
        """Gives up: threads cannot be killed, but those not yet asked to stop are asked."""
        self.stop(self.running, 0.0)

    def abort(self) -> None:
        if self.running and not self.stopping:
            self.stop(self.running, 0.0)

    def succeeds(self, ended: Ended) -> bool:
        # Were the stop event set, a colocated node would have crashed, and its report
        # would be on its way: that a node stopped is no success then.
        return super().succeeds(ended) and not self.manager.stop_event().is_set()

    def reap_seconds(self) -> float:
        return 0.0


class _OwnStop:
    """Launchpad's worker manager as the thread of a node sees it that has a stop event of its own.

    So a replay's tables are there until the learner has saved them.
    """

    def __init__(self, manager: worker_manager.WorkerManager, stop: threading.Event) -> None:
        self._manager = manager
        self._stop = stop

    def stop_event(self) -> threading.Event:
        return self._stop

    def wait_for_stop(self, timeout_secs: float | None = None) -> bool:
        return self._stop.wait(timeout_secs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


def _report(
    events: queue.SimpleQueue[Event],
    name: str,
    node: lp.PyNode,
    function: Callable[[], Any],
    stop: threading.Event | None,
) -> None:
    """A node's thread: never lets an exception reach Launchpad, which would print it late."""
    # Launchpad's own way for `lp.stop()` to end the run is to send this process SIGTERM.
    node.launch_context.initialize(lp.LaunchType.LOCAL_MULTI_THREADING, None, stop_program)
    if stop is not None:
        # There is no public way: it is where `lp.stop_event` looks, for this thread alone.
        worker_manager._WORKER_MANAGERS.manager = _OwnStop(worker_manager.get_worker_manager(), stop)
    try:
        function()
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
def _reporting_to(
    events: queue.SimpleQueue[Any],
    program: lp.Program,
    names: Mapping[tuple[str, int], str],
    stops: Mapping[str, threading.Event],
) -> Iterator[None]:
    """Makes the nodes that are launched inside report their ends, and heed their own stop events.

    Launchpad's own way, `WorkerManager.wait`, polls, and does not say which node
    raised. A node's function is read once, by `lp.launch`, and is private.
    """
    nodes = {names[label, i]: node for label, group in program.groups.items() for i, node in enumerate(group)}
    functions = {name: node.function for name, node in nodes.items()}
    for name, node in nodes.items():
        node._partial_function = functools.partial(
            _report, events, name, node, functions[name], stops.get(name)
        )
    try:
        yield
    finally:
        for name, node in nodes.items():
            node._partial_function = functions[name]


@contextlib.contextmanager
def _addresses_from(
    ports: LoopbackPorts,
    sockets: PrivateSockets,
    program: lp.Program,
    names: Mapping[tuple[str, int], str],
) -> Iterator[None]:
    """Gives the nodes that are launched inside sockets, or ports which nobody else takes.

    Launchpad would pick ports that outgoing connections and other launchers may get.
    """
    nodes = program.get_all_nodes()
    for label, group in program.groups.items():
        for index, node in enumerate(group):
            node.bind_addresses = functools.partial(
                bind, node, names[label, index], lambda: f"{LOOPBACK}:{ports(LOOPBACK)}", sockets
            )
    try:
        yield
    finally:
        for node in nodes:
            del node.bind_addresses


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


def _forget_workers(manager: worker_manager.WorkerManager) -> None:
    """Keeps Launchpad's hook at the interpreter's exit from waiting for stuck nodes.

    There is no public way: the hook is `manager.wait`, which waits for all workers.
    """
    # Not for ever: a user's stop handler may hang while Launchpad holds this lock.
    if manager._mutex.acquire(timeout=1.0):
        try:
            manager._active_workers.clear()
        finally:
            manager._mutex.release()
