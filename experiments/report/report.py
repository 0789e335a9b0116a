"""The comparison of runs, as one self-contained page and as tables for the terminal."""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence

import rich.box
import rich.console
import rich.table

from classact.experiments import curves
from classact.experiments.compare import comparison
from classact.experiments.compare.comparison import Comparison, PathLike
from classact.experiments.compare.differences import Difference
from classact.experiments.compare.groups import Group
from classact.experiments.report import report_page, scored_images, summary, table
from classact.experiments.report.drawn import Drawn, draw

_TERMINAL_WIDTH = 132


@dataclasses.dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        path: the page.
        comparisons: what it shows, one for each metric.
        headline: what makes figures worthless, or unlike what they seem, one sentence each.
        notes: what its reader must know besides, one sentence each.
        differences: of each group from its baseline, by the group's label.
        drawn: the page's charts.
    """

    path: pathlib.Path
    comparisons: tuple[Comparison, ...]
    headline: tuple[str, ...]
    notes: tuple[str, ...]
    differences: Mapping[str, tuple[Difference, ...]]
    drawn: Drawn


def write_report(
    run_dirs: Sequence[PathLike],
    out: PathLike,
    baseline: PathLike | Sequence[PathLike] | None = None,
    metrics: Sequence[str] = (),
    targets: Sequence[float] = (),
    reference_runs: int | None = None,
) -> Report:
    """Compares runs and writes the page: a single file that loads nothing.

    Runs may be unfinished, of different lengths, or without evaluations: the
    page says so, and shows what there is.

    Args:
        run_dirs: the run directories.
        out: the HTML file to write; its folder is made if need be.
        baseline: see `comparison.compare`.
        metrics: see `comparison.compare_metrics`.
        targets: see `comparison.compare`.
        reference_runs: see `comparison.compare`.

    Returns:
        The report, for `format_table`, `export` and its charts' files.

    Raises:
        RunError: if a directory is no run, no run has one of the metrics, or a
            file is damaged (but for the scored images, and what is recorded of scores
            and classes, which are left out with a note).
        ValueError: if there is nothing to compare.
        OSError: if the page cannot be written.
    """
    comparisons = comparison.compare_metrics(run_dirs, baseline, metrics, targets, reference_runs)
    drawn = draw(comparisons)
    images, image_notes = _load_images(comparisons[0].groups)
    headline = dict.fromkeys(line for compared in comparisons for line in compared.headline)
    notes = dict.fromkeys(note for compared in comparisons for note in compared.notes)
    report = Report(
        pathlib.Path(out),
        comparisons,
        tuple(headline),
        (*notes, *image_notes, *drawn.notes),
        _differences(comparisons),
        drawn,
    )
    report.path.parent.mkdir(parents=True, exist_ok=True)
    page = report_page.render(comparisons, drawn, report.headline, report.notes, report.differences, images)
    report.path.write_text(page, encoding="utf-8")
    return report


def _differences(comparisons: Sequence[Comparison]) -> dict[str, tuple[Difference, ...]]:
    """Each group's differences by any of the metrics, once."""
    found: dict[str, dict[Difference, None]] = {}
    for compared in comparisons:
        for group in compared.groups:
            found.setdefault(group.label, {}).update(dict.fromkeys(group.differences))
    return {label: tuple(differences) for label, differences in found.items() if differences}


def format_table(report: Report, width: int = _TERMINAL_WIDTH) -> str:
    """The report's tables, one for each metric, as plain text.

    Above them what makes figures worthless, below them the notes, and in what else each
    group differs from its baseline.

    Columns without any figure are left out.

    Args:
        report: what `write_report` returned.
        width: characters a line of a table, at most.
    """
    text = io.StringIO()
    console = rich.console.Console(file=text, width=width, color_system=None, markup=False, highlight=False)
    for line in report.headline:
        console.print(f"WARNING: {line}", soft_wrap=True)
    if report.headline:
        console.print()
    for compared in report.comparisons:
        console.print(_table(compared))
        for line in table.who_pays(compared.groups):
            console.print(f"  {line}", soft_wrap=True)
        console.print()
        for line in _certainties(compared):
            console.print(line, soft_wrap=True)
    for note in report.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    for label, differences in report.differences.items():
        others = [difference for difference in differences if not difference.consequence]
        if others:
            console.print(f"{label} differs from its baseline also in:", soft_wrap=True)
        for difference in others:
            console.print(f"  {difference}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def _certainties(compared: Comparison) -> list[str]:
    """How sure the differences from the baseline are, a line for each that is known, and an empty one."""
    said = []
    for group in compared.groups:
        if group.is_baseline or not any(row.target is not None for row in group.counted):
            continue
        for header, column in (("fewer updates", "fewer_updates"), ("final, points", "final_gain")):
            told = summary.difference(group, column)
            if len(group.counted) > 1 or (column == "fewer_updates" and told != table.NONE):
                said.append(f"  {group.label}, {header}: {told}")
    return [*said, ""] if said else []


def _table(compared: Comparison) -> rich.table.Table:
    """A comparison as a table with the metric's name above it."""
    lines = table.lines(compared.groups)
    shown = [
        i
        for i, column in enumerate(table.COLUMNS)
        if not column.page_only and any(line.cells[i] != table.NONE for line in lines)
    ]
    held = any(row.target is not None for group in compared.groups for row in group.rows)
    target = f"target: the final {compared.measure} of the baseline run of the same learner and seed"
    drawn = rich.table.Table(
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=compared.metric,
        title_justify="left",
        caption=target if held else None,
        caption_justify="left",
    )
    drawn.add_column("policy", overflow="fold", vertical="bottom")
    drawn.add_column("seed", justify="right", no_wrap=True)
    for i in shown:
        drawn.add_column(table.COLUMNS[i].short.format(**table.words(compared)), justify="right")
    for line in lines:
        drawn.add_row(line.label, line.seed, *(line.cells[i] for i in shown))
    return drawn


def _load_images(groups: Sequence[Group]) -> tuple[list[tuple[str, scored_images.Extremes]], list[str]]:
    """Loads each group's scored images, those of its first run that has some."""
    images, notes = [], []
    for group in groups:
        for row in group.rows:
            try:
                extremes = scored_images.load_extremes(row.run.path)
            except curves.RunError as error:
                notes.append(f"No images: {error}.")
                continue
            if extremes is not None:
                images.append((group.label, extremes))
                break
    return images, notes
