"""How a run of the program ended: the answer of every engine.

Each engine (threads, processes) starts a program's tasks, watches them and
returns one `Outcome`, so that a task's life means the same everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

Status = Literal["completed", "failed", "interrupted"]


class LaunchError(RuntimeError):
    """The program cannot be started as asked; nothing was started."""


@dataclasses.dataclass(frozen=True)
class TaskEnd:
    """What is known of one task after its end.

    Attributes:
      exit_status: the process's exit status; -N if signal N ended it.
      cpu_seconds: user and system time of the process and of those of its
        children that it waited for; if it was started again, of all its lives.
      peak_bytes: the largest resident size that was seen (sampled), in any life.
      killed: whether the engine ended it with SIGKILL because it did not stop
        within its notice.
    """

    exit_status: int
    cpu_seconds: float
    peak_bytes: int
    killed: bool

    def after(self, earlier: TaskEnd | None) -> TaskEnd:
        """Returns the end of a task that ended before as `earlier`, and was started again."""
        if earlier is None:
            return self
        return dataclasses.replace(
            self,
            cpu_seconds=earlier.cpu_seconds + self.cpu_seconds,
            peak_bytes=max(earlier.peak_bytes, self.peak_bytes),
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      status: "completed" only if every task of the awaited labels ended by
        itself and without an error; "failed" if a task crashed first;
        "interrupted" if a signal asked for the end first.
      failed_task: name of the task whose crash ended the run.
      message: one line for people; empty if all went well.
      traceback: the crashed task's traceback, or the end of its log if it left
        none; may have many lines.
      signal: number of the signal that interrupted the run.
      cpu_seconds: processor time of all tasks together.
      peak_bytes: the largest sum of the tasks' resident sizes that was seen;
        pages shared by several processes count once for each.
      tasks: end of each task by its name; empty where tasks are threads.
      stuck: names of the tasks that still run. Threads cannot be ended from
        outside, and after them only `os._exit` is sure to end the process;
        processes are stuck only if they hang inside the kernel.
      restarts: how often each task was started again after it had died, by its name;
        the others are left out.
      diverged: learner step at which the run was found to have diverged, which is why it
        failed; None if it was not.
    """

    status: Status
    failed_task: str | None = None
    message: str = ""
    traceback: str = ""
    signal: int | None = None
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    tasks: Mapping[str, TaskEnd] = dataclasses.field(default_factory=dict)
    stuck: tuple[str, ...] = ()
    restarts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    diverged: int | None = None

    @property
    def exit_status(self) -> int:
        """The launcher's exit status: 0, 1, or 128 + signal as shells have it."""
        if self.status == "completed":
            return 0
        if self.status == "interrupted":
            return 128 + (self.signal or 0)
        return 1

    @property
    def killed(self) -> tuple[str, ...]:
        """Names of the tasks that did not stop within the notice."""
        return tuple(name for name, end in self.tasks.items() if end.killed)

    def with_summed_peaks(self) -> Outcome:
        """Returns it with the sum of the tasks' peaks, where nobody sees all of them at once."""
        return dataclasses.replace(self, peak_bytes=sum(end.peak_bytes for end in self.tasks.values()))
