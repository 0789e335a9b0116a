"""What each group shows against its baseline, in words that claim no more than its seeds do."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Optional

from classact.experiments.compare import statistics
from classact.experiments.compare.chance import Chance
from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group
from classact.experiments.compare.statistics import Paired
from classact.experiments.compare.targets import FULL
from classact.experiments.report import table

STAR = "★"
HEADERS = (
    "policy",
    "seeds",
    "final {measure}",
    "gain in final {measure}, points",
    "fewer updates",
    "compute saved, full",
)
_DIFFERENCES = ("final_gain", "fewer_updates", "saving_full")


@dataclasses.dataclass(frozen=True)
class Line:
    """A group's line: its label, and one text for each of `HEADERS` after it."""

    label: str
    cells: tuple[str, ...]


def lines(compared: Comparison) -> list[Line]:
    """A line for each group that has a final value."""
    found = []
    for group in compared.groups:
        finals = [row.final for row in group.counted if row.final is not None]
        if not finals:
            continue
        differences = [difference(group, column) for column in _DIFFERENCES]
        cells = (str(len(finals)), mean_and_spread(finals), *differences)
        found.append(Line(group.label, cells))
    return found


def mean_and_spread(values: Sequence[float]) -> str:
    """`30.1 ± 0.7 %`, or `30.1 %` of one value."""
    sd = statistics.spread(values)
    mean = sum(values) / len(values)
    return table.percent(mean) if sd is None else f"{100 * mean:.1f} ± {table.percent(sd)}"


def difference(group: Group, column: str) -> str:
    """A difference from the baseline with what is known of its certainty.

    Args:
        group: compared.
        column: of `Group.paired`.
    """
    if group.is_baseline:
        return "baseline"
    there, tried = group.reached
    if column != "final_gain" and there < tried:
        bound = at_most(group) if column == "fewer_updates" else None
        return f"{there} of {tried} reached it" + (
            f"; at most {table.percent(bound)}" if bound is not None else ""
        )
    found = group.paired(column)
    show = points if column == "final_gain" else table.signed_percent
    alone = group.counted[0].chance if len(group.counted) == 1 and column == "fewer_updates" else None
    shown = "no gain shown, " if alone is not None and within_chance(group) else ""
    if alone is not None and only_ends_higher(group):
        shown = "it ends higher than chance shows, but of updates saved "
    chance = "" if alone is None else f" ({shown}{chance_in_words(alone)})"
    if found is None:
        mean = group.mean(column)
        return table.NONE if mean is None else f"{show(mean)}{chance}, not paired by seed"
    paired = "" if found.n == len(group.counted) else f", {found.n} of {len(group.counted)} seeds paired"
    if found.n == 1:
        return f"{show(found.mean)}{chance}{paired}"
    return f"{show(found.mean)}{star(found)} ({interval(found, show)}){paired}"


def points(share: float) -> str:
    """0.123 as `+12.3`."""
    return f"{100 * share:+.1f}".replace("-", "−")


def star(found: Optional[Paired]) -> str:
    """A star if the difference is told from 0."""
    return f" {STAR}" if found is not None and found.starred else ""


def certainty(group: Group) -> str:
    """How sure a group's share of updates that were not needed is; "" if nothing is known of that."""
    found = group.paired("fewer_updates")
    if found is not None and found.n > 1:
        return f"{found.n} seeds, {interval(found)}"
    chance = group.counted[0].chance if len(group.counted) == 1 else None
    return "" if chance is None else chance_in_words(chance)


def interval(found: Paired, show: Callable[[float], str] = table.signed_percent) -> str:
    """`95 % interval +2.0 to +9.1 %, p = 0.003`."""
    if found.low is None or found.high is None or found.p is None:
        return "the seeds do not differ"
    low = show(found.low).removesuffix("\N{NO-BREAK SPACE}%")
    return f"95\N{NO-BREAK SPACE}% interval {low} to {show(found.high)}, {p_value(found.p)}"


def p_value(p: float) -> str:
    """`p = 0.003`, or `p < 0.001`."""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def chance_in_words(chance: Chance) -> str:
    """What two runs of one law show."""
    most = 0.0 if chance.high is None else max(chance.high, 0.0)
    guessed = "" if chance.over_seeds else "about "
    return f"two runs of one law: up to {guessed}{100 * most:.0f}\N{NO-BREAK SPACE}%"


def at_most(group: Group) -> Optional[float]:
    """An upper bound of the mean share of updates that were not needed.

    A run that did not reach the target would have taken more updates than it made; None if
    one has no bound.
    """
    bounds = []
    for row in group.counted:
        full = row.at_targets[FULL] if row.at_targets else None
        if full is None or full.fewer is None or full.bound == ">":
            return None
        bounds.append(full.fewer)
    return sum(bounds) / len(bounds) if bounds and not group.diverged else None


def within_chance(group: Group) -> bool:
    """Whether a group shows no gain: two runs of one law would show it, or the seeds' interval includes 0."""
    if group.is_baseline:
        return False
    found = group.paired("fewer_updates")
    if found is not None and found.n > 1:
        return found.low is not None and found.includes_zero
    return _alone_within(group) and not only_ends_higher(group)


def only_ends_higher(group: Group) -> bool:
    """Whether one run alone ends higher than chance shows, though it saves no more updates than that.

    So it is where the baseline has hardly begun to learn: its own curve reaches any value by scatter.
    """
    if group.is_baseline or not _alone_within(group):
        return False
    (row,) = group.counted
    if row.final is None or row.target is None or row.chance is None:
        return False
    return row.final - row.target > row.chance.final_gain


def _alone_within(group: Group) -> bool:
    """Whether two runs of one law would show the updates saved of a group of one run."""
    if len(group.counted) != 1:
        return False
    (row,) = group.counted
    return row.chance is not None and row.chance.holds(row.fewer_updates)
