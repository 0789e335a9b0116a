"""A comparison as data: flat rows for a CSV file, and a table for LaTeX."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from classact.experiments import curves
from classact.experiments.compare import statistics
from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.groups import Group, Row
from classact.experiments.compare.targets import Target
from classact.experiments.report import summary, table
from classact.experiments.report.charts import long_name

Value = str | int | float | bool | None
_DIFFERENCES = ("final_gain", "fewer_updates", "saving_full")
# Whatever figures a run has.
_NO_FIGURES = ("run", "same_seed", "at_targets", "chance")
_COLUMNS = tuple(field.name for field in dataclasses.fields(Row) if field.name not in _NO_FIGURES)


def rows(compared: Comparison) -> list[dict[str, Value]]:
    """A comparison's runs and groups as flat rows, which all have the same columns.

    `kind` is "run" or "group". A run's row has the fields of `groups.Row`; a group's has their
    means over the completed runs (None unless all have one), the standard deviation `final_sd`,
    how many runs `reached` the target of how many `runs`, and of each difference from the baseline
    `<difference>_low`, `_high` (the 95 % interval) and `_p`, see `statistics.paired`. Shares are
    from 0 to 1; None is what is not known or does not apply.
    """
    found = []
    for group in compared.groups:
        for row in group.rows:
            found.append({**_shared("run", compared, group), **_of_run(row), **_at_targets(compared, [row])})
        found.append(
            {**_shared("group", compared, group), **_of_group(group), **_at_targets(compared, group.counted)}
        )
    names = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in names} for row in found]


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """All comparisons' rows as CSV with a header; None is an empty cell."""
    found = [row for compared in comparisons for row in rows(compared)]
    names = list(dict.fromkeys(name for row in found for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def to_latex(comparisons: Sequence[Comparison]) -> str:
    r"""A table for each metric, in the manner of booktabs (`\usepackage{booktabs}`)."""
    return "\n".join(_latex_table(compared) for compared in comparisons)


def _shared(kind: str, compared: Comparison, group: Group) -> dict[str, Value]:
    return {
        "kind": kind,
        "metric": compared.metric,
        "policy": group.policy,
        "label": group.label,
        "baseline": group.label if group.is_baseline else group.baseline,
    }


def _of_run(row: Row) -> dict[str, Value]:
    seed: Any = row.run.field("seed")
    chance = row.chance
    return {
        "seed": seed,
        "run": str(row.run.path),
        "status": row.run.status,
        "updates_made": row.run.steps,
        "same_seed": row.same_seed,
        "reached": None if row.target is None else int(row.updates is not None),
        **{name: getattr(row, name) for name in _COLUMNS},
        "chance_low": None if chance is None else chance.low,
        "chance_high": None if chance is None else chance.high,
    }


def _of_group(group: Group) -> dict[str, Value]:
    finals = [row.final for row in group.counted if row.final is not None]
    there, tried = group.reached
    found: dict[str, Value] = {
        "status": curves.COMPLETED
        if all(row.run.status == curves.COMPLETED for row in group.rows)
        else "mixed",
        "runs": len(group.rows),
        "reached": there if tried else None,
        **{name: group.mean(name) for name in _COLUMNS},
        "final_sd": statistics.spread(finals),
    }
    for name in _DIFFERENCES:
        paired = group.paired(name)
        for what in ("sd", "low", "high", "p"):
            found[f"{name}_{what}"] = None if paired is None else getattr(paired, what)
    return found


def _at_targets(compared: Comparison, of: Sequence[Row]) -> dict[str, Value]:
    """Fewer updates at each target, on average; "<" where a run that did not get there makes it a bound."""
    found: dict[str, Value] = {}
    for place, target in enumerate(compared.targets_tried):
        each = [row.at_targets[place] for row in of if row.at_targets]
        known = [item.fewer for item in each if item is not None and item.fewer is not None]
        whole = bool(known) and len(known) == len(of)
        name = f"fewer_updates_at_{target_name(target)}"
        found[name] = sum(known) / len(known) if whole else None
        bounds = {item.bound for item in each if item is not None} - {""}
        found[f"{name}_bound"] = "".join(sorted(bounds)) if whole else None
    return found


def target_name(target: Target) -> str:
    """`50pct` of the final value, or the value itself."""
    return f"{100 * target.share:g}pct" if target.share is not None else f"{target.value:g}"


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    "–": "--", summary.STAR: r"$^\star$", "<": r"$<$", ">": r"$>$", "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip


def escaped(text: str) -> str:
    """A text as LaTeX takes it."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_table(compared: Comparison) -> str:
    words = table.words(compared)
    heads = [escaped(header.format(**words)) for header in summary.HEADERS]
    body = [
        " & ".join(escaped(cell) for cell in (line.label, *line.cells)) + r" \\"
        for line in summary.lines(compared)
    ]
    return "\n".join(
        [
            f"% {compared.metric}",
            r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            f"% {_about(compared)}",
            "",
        ]
    )


def _about(compared: Comparison) -> str:
    """What the numbers are, as a comment below the table."""
    seeds: Optional[int] = max((len(group.counted) for group in compared.groups), default=None)
    return (
        f"{long_name(compared.metric)}; mean and standard deviation over seeds (up to {seeds}); "
        "differences from the baseline run of the same seed, 95 % interval by t; "
        "a star: p < 0.01, paired t test"
    )
