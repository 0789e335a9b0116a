"""What runs in an actor on a host of a Ray cluster: one node of the program.

The actors import this module, and need neither Launchpad nor models.
"""

from __future__ import annotations

import os
import queue
from pathlib import Path
from typing import Any

from classact.launch.engines import on_host, ports
from classact.launch.engines.task import Task


class RayActor:
    """A node's share of its host. Ray calls each method in a thread of a pool that lives as long as this."""

    def __init__(self) -> None:
        """Runs nothing yet."""
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def open(self, marker: Path, folder: Path, python: str, servers: int) -> tuple[str, list[int]]:
        """Looks around on the host.

        Args:
          marker: a file that the launcher has just made in the work directory.
          folder: the launcher's current directory, in which the node will run.
          python: the launcher's interpreter.
          servers: number of ports to find.

        Returns:
          What the host lacks, "" for nothing, and ports that are free there.
        """
        if not marker.exists():
            return f"does not see the work directory {marker.parent}: it must be on a shared file system", []
        if not os.access(python, os.X_OK):
            return f"has no {python}, the launcher's Python", []
        if not folder.is_dir():
            return f"has no directory {folder}, in which the launcher was started", []
        return "", ports.free_ports(servers)

    def run(self, task: Task, folder: Path, notice: float) -> on_host.Finished:
        """Runs the node's task in a folder until it ends; see `on_host.run_task`."""
        os.chdir(folder)
        return on_host.run_task(task, self._events, notice)

    def stop(self, notice: float) -> None:
        """Asks the task to stop, and ends it after the notice."""
        self._events.put(on_host.Stop(notice))

    def kill(self) -> None:
        """Ends the task, and lets `run` tell how."""
        self._events.put(on_host.KILL)
