"""Runs tasks as processes of this machine: starts, watches and ends them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

from classact.launch.assembly.tasks import remove_data_files
from classact.launch.engines.engine import Engine, Patience, awaited_names
from classact.launch.engines.local.process import LocalProcess
from classact.launch.engines.outcome import Outcome, TaskEnd
from classact.launch.engines.ports import check_closed
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.task import Task


def run_processes(
    tasks: Sequence[Task],
    *,
    until: Collection[str],
    patience: Patience = Patience(),  # noqa: B008 - it is frozen.
    restarts: Restarts = Restarts(),  # noqa: B008 - it is frozen.
    on_start: Callable[[], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Outcome:
    """Runs tasks on this machine until the awaited ones have ended.

    A task succeeds if its process ends with status 0, and asks for the end of
    the run with `STOP_STATUS`; another end is a crash, and with `FATAL_STATUS` one
    that no restart cures. `Engine.watch` says what follows. SIGTERM asks a task to
    stop: it sets Launchpad's stop event there. SIGKILL ends it after the notice.

    Nothing outlives the call: neither processes, nor what they left in their
    process groups, nor the tasks' data files. If this process dies, the kernel
    kills the tasks. Output goes to each task's log.

    Blocks until all is over; call it from the main thread.

    Args:
      tasks: what to run, from `make_tasks`.
      until: labels whose tasks' success is the end of the run.
      patience: how long to wait for tasks to stop.
      restarts: which tasks that die are started again. Something that listens on such a
        task's address by then counts as another death.
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
        engine = _Processes(tasks, awaited, patience, on_tick, restarts)
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
        restarts: Restarts,
    ) -> None:
        super().__init__([], awaited, patience, on_tick, restarts)
        self._tasks = {task.name: task for task in tasks}
        self._processes: dict[str, LocalProcess] = {}
        self._peak_bytes = 0

    def start(self) -> None:
        for name, task in self._tasks.items():
            self._processes[name] = LocalProcess(task, self.events)
            self.begun(name)

    def restart(self, name: str) -> None:
        task = self._tasks[name]
        check_closed((name, address) for address in task.addresses)
        self._processes[name] = LocalProcess(task, self.events)

    def stop(self, names: Collection[str], notice: float) -> None:
        for name in names:
            self._processes[name].terminate()

    def kill(self) -> None:
        for name in self.running:
            self._processes[name].kill()

    def end_of(self, name: str) -> TaskEnd | None:
        return self._processes[name].end

    def tick(self) -> None:
        resident = sum(self._processes[name].resident_bytes() for name in self.running)
        self._peak_bytes = max(self._peak_bytes, resident)
        super().tick()

    def measured(self, outcome: Outcome) -> Outcome:
        """Returns the outcome with the most memory that all tasks together had."""
        return dataclasses.replace(outcome, peak_bytes=self._peak_bytes)
