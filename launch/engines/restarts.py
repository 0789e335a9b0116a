"""Which tasks that died are started again, and when."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable

_HOUR = 3600.0
# A task that lived shorter has died quickly: most likely it will again.
_QUICK_SECONDS = 60.0
_LONGEST_PAUSE = 30.0


@dataclasses.dataclass(frozen=True)
class Restarts:
    """How often a task that died is started again.

    Attributes:
      per_hour: restarts of one task within an hour; 0: none.
    """

    per_hour: int = 0


@dataclasses.dataclass
class _Lives:
    """The lives of one task."""

    began: float
    restarts: int = 0
    quick_deaths: int = 0
    recent: collections.deque[float] = dataclasses.field(default_factory=collections.deque)


class RestartPlan:
    """Remembers when each task of a run was started, and which ones are to be started again."""

    def __init__(self, policy: Restarts, clock: Callable[[], float]) -> None:
        """Begins without tasks.

        Args:
          policy: how many restarts are allowed.
          clock: gives the time, in seconds since any moment.
        """
        self._policy = policy
        self._clock = clock
        self._tasks: dict[str, _Lives] = {}
        self._planned: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, in the order of their first starts."""
        return tuple(self._tasks)

    @property
    def restarts(self) -> dict[str, int]:
        """How often each task was started again, during the whole run; others are left out."""
        return {name: lives.restarts for name, lives in self._tasks.items() if lives.restarts}

    @property
    def times(self) -> tuple[float, ...]:
        """When tasks are to be started again; empty if none is."""
        return tuple(self._planned.values())

    def begin(self, name: str) -> None:
        """Notes that a task is started now, for the first time or again."""
        now = self._clock()
        self._planned.pop(name, None)
        lives = self._tasks.get(name)
        if lives is None:
            self._tasks[name] = _Lives(now)
        else:
            lives.began = now
            lives.restarts += 1
            lives.recent.append(now)

    def began(self, name: str) -> float:
        """When a task was last started."""
        return self._tasks[name].began

    def within_hour(self, name: str) -> int:
        """How often a task was started again within the last hour."""
        recent = self._tasks[name].recent
        while recent and recent[0] <= self._clock() - _HOUR:
            recent.popleft()
        return len(recent)

    def plan(self, name: str) -> str | None:
        """Notes that a task has died, and plans its next start if that is allowed.

        It is planned at once, but after the second quick death in succession for a
        second later, then for 2, 4, … and at most 30 seconds.

        Returns:
          What is planned, in words; None if nothing is.
        """
        lives = self._tasks[name]
        now = self._clock()
        lives.quick_deaths = lives.quick_deaths + 1 if now - lives.began < _QUICK_SECONDS else 0
        before = self.within_hour(name)
        if before >= self._policy.per_hour:
            return None
        pause = _pause(lives.quick_deaths)
        self._planned[name] = now + pause
        when = f" in {pause:.0f} s" if pause else ""
        return f"started again{when} ({before + 1} of {self._policy.per_hour} within the hour)"

    def due(self) -> str | None:
        """A task that is to be started again by now, which `begin` then tells; None if there is none."""
        now = self._clock()
        return next((name for name, at in self._planned.items() if at <= now), None)

    def cancel(self) -> None:
        """Forgets what is planned."""
        self._planned.clear()


def _pause(quick_deaths: int) -> float:
    return 0.0 if quick_deaths < 2 else min(_LONGEST_PAUSE, 2.0 ** min(quick_deaths - 2, 10))
