"""Learner speed-up at several targets, not only at the baseline's final value."""

import dataclasses
from collections.abc import Sequence
from typing import Optional

from classact.experiments import curves
from classact.experiments.curves import Run

# Of the baseline's final value.
SHARES = (0.5, 0.75, 0.9, 1.0)
# Where the final value itself is among them.
FULL = SHARES.index(1.0)


@dataclasses.dataclass(frozen=True)
class Target:
    """A value to reach: a share of each baseline's final one, or the same for all.

    Attributes:
        share: of the baseline's final value; None if `value` is given.
        value: of the metric; None if `share` is given.
    """

    share: Optional[float] = None
    value: Optional[float] = None

    def of(self, final: float) -> float:
        """The value of the metric to reach, where the baseline ends at `final`."""
        return self.value if self.value is not None else (self.share or 0.0) * final


@dataclasses.dataclass(frozen=True)
class Reached:
    """What a run took to a target, beside its baseline.

    Attributes:
        updates: of the run; None if it did not get there.
        fewer: share of the baseline's updates that were not needed; where one of the two did not
            get there, a bound.
        bound: "" if `fewer` is exact; "<" if the run did not get there: it saved less; ">" if the
            baseline did not: more. With neither `fewer` is None.
    """

    updates: Optional[float]
    fewer: Optional[float]
    bound: str = ""


def default_targets(values: Sequence[float] = ()) -> tuple[Target, ...]:
    """`SHARES`, and values of the metric that somebody asked for."""
    shares = tuple(Target(share=share) for share in SHARES)
    return (*shares, *(Target(value=value) for value in dict.fromkeys(values)))


def reached(run: Run, others: Sequence[Run], target: Target) -> Optional[Reached]:
    """When a run reached a target, against the baseline runs that it is held against.

    Both are measured by `curves.updates_to_reach`. A run that did not get there would have
    taken more updates than it made.

    Args:
        run: the run.
        others: its baseline runs, whose means count; each with evaluations.
        target: what to reach.

    Returns:
        None without evaluations or baseline.
    """
    measured = [(other, end) for other in others if (end := curves.final(other.curve)) is not None]
    if not run.curve or not measured:
        return None
    value = target.of(sum(end for _, end in measured) / len(measured))
    updates = curves.updates_to_reach(run.curve, value)
    own = [(other, curves.updates_to_reach(other.curve, target.of(end))) for other, end in measured]
    baseline_there = all(took is not None for _, took in own)
    base = sum(other.curve[-1][0] if took is None else took for other, took in own) / len(own)
    if not base or (updates is None and not baseline_there):
        return Reached(updates, None)
    fewer = 1.0 - (run.curve[-1][0] if updates is None else updates) / base
    return Reached(updates, fewer, "<" if updates is None else "" if baseline_there else ">")
