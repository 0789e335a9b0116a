"""What happens to the tasks of a run, as its engine is told it."""

from __future__ import annotations

import dataclasses

from classact.launch.engines.interrupts import Interrupt


@dataclasses.dataclass(frozen=True)
class Crash:
    """Why a task failed.

    Attributes:
      message: one line for people.
      traceback: as `Outcome.traceback`.
      fatal: whether it is certain to happen again if the task is started again.
      diverged: learner step at which the task found that the run has diverged; None if it
        did not.
      lacks: last part of the labels of those tasks that should have delivered something to this
        one, and did not; "" if that is not the reason.
    """

    message: str
    traceback: str
    fatal: bool = False
    diverged: int | None = None
    lacks: str = ""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A task is over.

    Attributes:
      name: the task's name.
      crash: why it failed; None if it did not.
      stops_run: whether it asked for the end of the whole run, by `lp.stop()`.
      signal: number of the signal by which somebody else than the engine had asked
        it to stop on its host, as a cluster does that takes the host away.
    """

    name: str
    crash: Crash | None = None
    stops_run: bool = False
    signal: int | None = None


@dataclasses.dataclass(frozen=True)
class Asked:
    """Somebody else than the engine has asked a task to stop, see `Ended.signal`; it still runs."""

    name: str
    signal: int


Event = Ended | Asked | Interrupt
