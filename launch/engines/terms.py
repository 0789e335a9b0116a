"""On what terms an engine runs the nodes of a program: until when, how patiently, how often again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.restarts import Restarts


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long an engine waits, in seconds.

    Attributes:
      stop_notice: from the beginning of a stop to ending what still runs. The awaited
        tasks are asked first: they have all of it, to save their state for instance,
        and the others at least half. A large model needs more than the default. A
        second signal does not wait for it.
      crash_grace: from a crash after which the task is not started again to asking
        the others to stop. If every awaited task succeeds within it, the run is
        completed: a task that ends takes its servers away somewhat before its process
        is gone, and a client may not survive that.
    """

    stop_notice: float = 8.0
    crash_grace: float = 2.0


@dataclasses.dataclass(frozen=True)
class Terms:
    """What every engine keeps to.

    Attributes:
      until: labels whose nodes' success is the end of the run.
      patience: how long to wait for nodes to stop.
      restarts: which nodes that die are started again.
      on_start: called once, when all nodes are started.
      on_tick: called about once a second while they run; must not block.
      lack_seconds: after a start for want of data, how long another want is taken for the same,
        which no restart cures. More than a node may wait for data before it says so.
    """

    until: Collection[str]
    patience: Patience = Patience()
    restarts: Restarts = Restarts()  # noqa: RUF009 - it is frozen.
    on_start: Callable[[], None] = lambda: None
    on_tick: Callable[[], None] = lambda: None
    lack_seconds: float = 3600.0

    def awaited(self, labels: Mapping[str, str]) -> set[str]:
        """Returns the names of the tasks that the run waits for.

        Args:
          labels: label of every task by its name.

        Raises:
          LaunchError: if `until` is empty or holds something that is no task's label.
        """
        missing = set(self.until) - set(labels.values())
        if missing or not self.until:
            known = ", ".join(dict.fromkeys(labels.values()))
            raise LaunchError(
                f"until = {sorted(self.until)}: must name labels of the program, which has: {known}"
            )
        return {name for name, label in labels.items() if label in self.until}
