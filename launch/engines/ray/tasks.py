"""The tasks of a run as the work of Ray actors: started, watched, ended.

A node that died is started again in another actor on the same host; not by Ray, which
knows actors only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from classact.launch.engines import supervisor
from classact.launch.engines.crash_report import crash_text
from classact.launch.engines.events import Crash, Ended
from classact.launch.engines.outcome import TaskEnd
from classact.launch.engines.ray.reservation import Reservation, reason
from classact.launch.engines.task import Task

_POLL_SECONDS = 0.5
# What of the launcher's environment reaches the tasks. The rest is that of
# `ray start` on their host, where paths, proxies and credentials may be others.
_TRAVELLING = re.compile(r"PYTHONPATH|(CLASSACT|JAX|NCCL|TF|XLA)_.*")


class ActorTasks(supervisor.Tasks):
    """The tasks of one run, once they are `given`."""

    def __init__(self, notice: float, events: queue.SimpleQueue[Any]) -> None:
        """Has no task yet.

        Args:
          notice: seconds from asking tasks to stop to ending them, where a host asks.
          events: takes the tasks' ends.
        """
        self._notice = notice
        self._events = events
        self._tasks: dict[str, Task] = {}
        self._reservation: Reservation | None = None
        self._started: set[str] = set()
        # Answers of `RayActor.run` that are to come; the waiting thread takes from them.
        self._runs: dict[Any, Task] = {}
        self._runs_lock = threading.Lock()
        self._last_ends: dict[str, TaskEnd | None] = {}
        self._closed = threading.Event()

    @contextlib.contextmanager
    def given(self, tasks: Sequence[Task], reservation: Reservation) -> Iterator[None]:
        """Waits for the ends of these tasks, in a thread of its own, as long as the context lasts."""
        travelling = {name: value for name, value in os.environ.items() if _TRAVELLING.fullmatch(name)}
        self._tasks = {task.name: dataclasses.replace(task, env={**travelling, **task.env}) for task in tasks}
        self._reservation = reservation
        waiting = threading.Thread(target=self._wait, name="wait-ray", daemon=True)
        waiting.start()
        try:
            yield
        finally:
            self._closed.set()
            waiting.join()

    def start(self, name: str) -> None:
        """Starts a task in its actor, once that is there; in a new one, if it ran before."""
        assert self._reservation is not None, "tasks are given first"
        task = self._tasks[name]
        if name in self._started:
            self._reservation.renew((task.label, task.index))
        self._started.add(name)
        answer = self._actor_of(name).run.remote(task, Path.cwd(), self._notice)
        with self._runs_lock:
            self._runs[answer] = task

    def stop(self, names: Collection[str], notice: float) -> None:
        """Asks the actors to stop their tasks."""
        for name in names:
            self._actor_of(name).stop.remote(notice)

    def kill(self, names: Collection[str]) -> None:
        """Asks the actors to end their tasks."""
        for name in names:
            self._actor_of(name).kill.remote()

    def end_of(self, name: str) -> TaskEnd | None:
        """What the actor told; None if it was lost."""
        return self._last_ends.get(name)

    def _actor_of(self, name: str) -> Any:
        assert self._reservation is not None, "tasks are given first"
        task = self._tasks[name]
        return self._reservation.actor((task.label, task.index))

    def _wait(self) -> None:
        """Puts the tasks' ends on the queue."""
        import ray

        while not self._closed.is_set():
            with self._runs_lock:
                runs = list(self._runs)
            if not runs:
                self._closed.wait(_POLL_SECONDS)
                continue
            found, _ = ray.wait(runs, timeout=_POLL_SECONDS)
            for answer in found:
                with self._runs_lock:
                    task = self._runs.pop(answer)
                self._events.put(self._ended(task, answer))

    def _ended(self, task: Task, answer: Any) -> Ended:
        import ray

        assert self._reservation is not None, "tasks are given first"
        self._last_ends[task.name] = None
        try:
            finished = ray.get(answer)
        except ray.exceptions.RayError as error:
            host = self._reservation.host((task.label, task.index))
            message = f"task {task.name} was lost with its actor on {host.address}: {reason(error)}"
            gone = isinstance(error, ray.exceptions.ActorUnschedulableError)
            return Ended(task.name, Crash(message, crash_text(task.log_path), fatal=gone))
        self._last_ends[task.name] = finished.end
        return finished.ended
