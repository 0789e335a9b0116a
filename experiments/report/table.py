"""The comparison as rows of text, for the page and the terminal alike."""

import dataclasses
from collections.abc import Callable, Sequence

from classact.experiments import curves
from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group, Row
from classact.experiments.report.charts import si_scale

NONE = "–"
_SPACE = "\N{NO-BREAK SPACE}"
_AGAINST_BASELINE = ("fewer_updates", "saving_paper", "saving_full", "saving_shared", "saving_free")


def percent(share: float) -> str:
    """0.821 as `82.1 %`."""
    return f"{100 * share:.1f}{_SPACE}%".replace("-", "−")


def signed_percent(share: float) -> str:
    """0.031 as `+3.1 %`."""
    return f"{100 * share:+.1f}{_SPACE}%".replace("-", "−")


def macs(value: float) -> str:
    """1.23e13 as `12.3 T`."""
    factor, prefix = si_scale(value)
    return f"{value / factor:.3g}{_SPACE}{prefix}".rstrip()


def duration(seconds: float) -> str:
    """222 as `3:42`, 3723 as `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: the field of `Row` that it shows, and how.

    Attributes:
        field: of `Row`.
        header: for the page; see `words` for the names in braces.
        short: for the terminal, in two lines at most.
        show: formats a value.
        page_only: whether the terminal has no room for it.
    """

    field: str
    header: str
    short: str
    show: Callable[[float], str]
    page_only: bool = False


COLUMNS = (
    Column("final", "final {measure}", "final", percent),
    Column("updates", "updates to baseline's final", "updates\nto target", lambda value: f"{value:,.0f}"),
    Column("fewer_updates", "fewer updates", "fewer\nupdates", percent),
    Column("macs", "MACs to baseline's final", "MACs to\ntarget", macs),
    Column("saving_paper", "compute saved, paper's formula", "saved\n(paper)", signed_percent),
    Column("saving_full", "compute saved, full", "saved\n(full)", signed_percent),
    Column("saving_shared", "compute saved, reference shared", "", signed_percent, page_only=True),
    Column("saving_free", "compute saved, reference not counted", "", signed_percent, page_only=True),
    Column("wall_seconds", "wall time", "wall\ntime", duration),
    Column("cpu_seconds", "CPU time", "CPU\ntime", duration),
    Column("staleness", "staleness, updates", "stale-\nness", lambda value: f"{value:.1f}"),
    Column("corrupted", "wrong {targets} trained on", "wrong\n{targets}", percent),
)


def words(compared: Comparison) -> dict[str, str]:
    """What a header calls the metric and what the runs learn, for `header.format`."""
    return {"measure": compared.measure, "targets": compared.targets}


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table: a run, or the mean of a group's completed runs.

    Attributes:
        label: the group's name, with the run's status if it did not complete.
        seed: the run's seed, or `mean`.
        cells: one text for each column.
        is_mean: whether it is a mean.
    """

    label: str
    seed: str
    cells: tuple[str, ...]
    is_mean: bool = False


def lines(groups: Sequence[Group]) -> list[Line]:
    """The table's lines: each group's runs, and their mean if there are several."""
    result = []
    for group in groups:
        for row in group.rows:
            status = "" if row.run.status == curves.COMPLETED else f" ({row.run.status})"
            status += " (training data)" if row.run.on_training_data else ""
            cells = tuple(_cell(group, row, column) for column in COLUMNS)
            result.append(Line(group.label + status, str(row.run.field("seed", NONE)), cells))
        if len(group.counted) > 1:
            cells = tuple(_mean_cell(group, column) for column in COLUMNS)
            result.append(Line(group.label, "mean", cells, is_mean=True))
    return result


def who_pays(groups: Sequence[Group]) -> list[str]:
    """A line for each group that has a reference: what it saves by who pays for that."""
    found = []
    for group in groups:
        savings = [group.mean(f"saving_{way}") for way in ("full", "shared", "free")]
        known = [signed_percent(saving) for saving in savings if saving is not None]
        if len(known) == len(savings) and len(set(known)) > 1 and not group.is_baseline:
            full, shared, free = known
            found.append(
                f"{group.label}: compute saved {full} with all of the reference's training, {shared} with a "
                f"share of it, {free} without it"
            )
    return found


def _cell(group: Group, row: Row, column: Column) -> str:
    """A run's cell."""
    value = getattr(row, column.field)
    if row in group.diverged and column.field in ("final", *_AGAINST_BASELINE):
        return curves.DIVERGED if column.field == "final" else NONE
    if group.is_baseline and column.field in _AGAINST_BASELINE:
        return "baseline" if column.field == "fewer_updates" else NONE
    if value is None:
        return "not reached" if column.field == "updates" and row.target is not None else NONE
    return column.show(value)


def _mean_cell(group: Group, column: Column) -> str:
    """A group's cell: the mean, or how many runs diverged, or reached the target, if not all did."""
    if group.is_baseline and column.field in _AGAINST_BASELINE:
        return "baseline" if column.field == "fewer_updates" else NONE
    value = group.mean(column.field)
    if value is not None:
        return column.show(value)
    tried = len(group.counted) + len(group.diverged)
    if column.field == "final" and group.diverged:
        return f"{len(group.diverged)} of {tried} diverged"
    if column.field == "updates" and any(row.target is not None for row in group.counted):
        reached = sum(row.updates is not None for row in group.counted)
        return f"{reached} of {tried} reached it"
    return NONE
