"""`--launch=processes`: runs tasks as processes of this machine."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Collection, Sequence

from classact.launch.engines import supervisor
from classact.launch.engines.events import Event
from classact.launch.engines.interface import Engine, Job
from classact.launch.engines.local.process import LocalProcess
from classact.launch.engines.outcome import Outcome, TaskEnd
from classact.launch.engines.ports import LoopbackPorts, check_closed
from classact.launch.engines.sockets import PrivateSockets
from classact.launch.engines.task import Task, remove_data_files
from classact.launch.engines.terms import Terms


class Processes(Engine):
    """Every node is a process of this machine."""

    def run(self, job: Job) -> Outcome:
        """See `run_processes`."""
        with LoopbackPorts() as ports, PrivateSockets() as sockets:
            return run_processes(job.make_tasks(ports=ports, sockets=sockets), job.terms)


def run_processes(tasks: Sequence[Task], terms: Terms) -> Outcome:
    """Runs tasks on this machine until the awaited ones have ended.

    A task succeeds if its process ends with status 0, and asks for the end of
    the run with `STOP_STATUS`; another end is a crash, and with `FATAL_STATUS` one
    that no restart cures. `Supervisor.watch` says what follows. SIGTERM asks a task to
    stop: it sets Launchpad's stop event there. SIGKILL ends it after the notice.

    Nothing outlives the call: neither processes, nor what they left in their
    process groups, nor the tasks' data files. If this process dies, the kernel
    kills the tasks. Output goes to each task's log.

    Blocks until all is over; call it from the main thread.

    Args:
      tasks: what to run.
      terms: how. Something that listens on the address of a task by the time that it is
        to be started again counts as another death.

    Returns:
      How the run ended.

    Raises:
      LaunchError: before anything is started, if a label of `terms.until` is no
        task's, or if something listens on a task's address (PortTakenError).
      RuntimeError: outside the main thread.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    started = _Started(tasks, events)
    watcher = supervisor.Supervisor(started, {task.name: task.label for task in tasks}, terms, events)
    try:
        check_closed((task.name, address) for task in tasks for address in task.addresses)
        with watcher.interrupts():
            return dataclasses.replace(watcher.run(), peak_bytes=started.peak_bytes)
    finally:
        remove_data_files(tasks)


class _Started(supervisor.Tasks):
    """The processes of one run.

    Attributes:
      peak_bytes: the most memory that all of them together were seen to have.
    """

    def __init__(self, tasks: Sequence[Task], events: queue.SimpleQueue[Event]) -> None:
        self.peak_bytes = 0
        self._tasks = {task.name: task for task in tasks}
        self._events = events
        self._processes: dict[str, LocalProcess] = {}

    def start(self, name: str) -> None:
        task = self._tasks[name]
        if name in self._processes:
            check_closed((name, address) for address in task.addresses)
        self._processes[name] = LocalProcess(task, self._events)

    def stop(self, names: Collection[str], notice: float) -> None:
        for name in names:
            self._processes[name].terminate()

    def kill(self, names: Collection[str]) -> None:
        for name in names:
            self._processes[name].kill()

    def end_of(self, name: str) -> TaskEnd | None:
        return self._processes[name].end

    def look(self, names: Collection[str]) -> None:
        resident = sum(self._processes[name].resident_bytes() for name in names)
        self.peak_bytes = max(self.peak_bytes, resident)
