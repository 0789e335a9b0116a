"""A task: one node of a program as a command for any engine to start on its host."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from classact.calls import keys

STOP_STATUS = 86
"""Exit status with which a task asks for the end of the whole run: `lp.stop()`."""

FATAL_STATUS = 87
"""Exit status of a task that met an error which no restart cures, see `entry.Entry`."""

NO_DATA_STATUS = 90
"""Exit status of a task that got nothing from those that should deliver; its log says of which data set."""

UNWRITABLE_STATUS = 88
"""As `FATAL_STATUS`, of a task whose files cannot be written; its log is one of them."""

DIVERGED_STATUS = 89
"""As `FATAL_STATUS`, of a task that found that the run has diverged; its log says at which step."""

TASK_VARIABLE = "CLASSACT_TASK"
"""Is in the environment of a task's process."""
STOP_SIGNAL_VARIABLE = "CLASSACT_STOP_SIGNAL"
"""Names the signal that asks a task to stop where SIGTERM must not, see `entry.Entry`."""


DOING = ".doing"
"""Suffix of the file beside a task's log that holds what the task has last said of itself."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One node of the program, ready to start.

    Attributes:
      name: unique in the program and usable as a file name, see `task_names`.
      label: label of the node's group, for instance "replay/icons".
      index: place in its group, from 0.
      host: where it must run, as the engine calls it.
      command: what to run, in the launcher's working directory.
      env: variables to set on top of the launcher's environment.
      addresses: "host:port" of each server that the node starts.
      data_file: the serialised nodes of the group; read when the task starts.
      log_path: where its standard output and error go.
      hung_seconds: how long it may be silent, or not get on, until it is ended; 0: for ever.
    """

    name: str
    label: str
    index: int
    host: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    addresses: tuple[str, ...]
    data_file: Path
    log_path: Path
    hung_seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Writes the task as JSON, for `load` on the host where it runs."""
        path.write_text(json.dumps(dataclasses.asdict(self), default=str))

    @classmethod
    def load(cls, path: Path) -> Task:
        """Reads what `save` wrote.

        Raises:
          OSError: if the file is not there.
          ValueError: if it holds no task.
        """
        fields = json.loads(path.read_text())
        try:
            return cls(
                **{
                    **fields,
                    "command": tuple(fields["command"]),
                    "addresses": tuple(fields["addresses"]),
                    "data_file": Path(fields["data_file"]),
                    "log_path": Path(fields["log_path"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no task: {error}") from None


def remove_data_files(tasks: Sequence[Task]) -> None:
    """Deletes the serialised nodes, their folder if nothing else is in it, and the keys of their servers."""
    remove_files({task.data_file for task in tasks})
    for path in {task.env[keys.VARIABLE] for task in tasks if task.addresses and keys.VARIABLE in task.env}:
        Path(path).unlink(missing_ok=True)


def remove_files(paths: Collection[Path]) -> None:
    """Deletes files that may be gone, and their folders if nothing else is in them."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths}:
        with contextlib.suppress(OSError):  # Not empty: somebody else's files.
            folder.rmdir()
