"""A sweep: many runs from one file, the runs whose weights they need among them, and a table of them all.

A sweep's file is a configuration file with two functions' worth of more: `RUNS`, the names of its
parts, each of which `get_config(part)` makes a configuration of. A part whose
`reference.checkpoint` is the name of another part is scored with what that one has trained, and one
whose `learner.init` or `scorer.init` is, begins with it.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional

from classact.experiments import curves, records
from classact.experiments.compare import comparison, groups
from classact.experiments.config import ConfigError
from classact.experiments.records import Record

# They are names of folders.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]*")
# The fields that name weights: group and field.
_WEIGHTS = (("reference", "checkpoint"), ("learner", "init"), ("scorer", "init"))
_MOST_PARTS = 10_000


@dataclasses.dataclass(frozen=True)
class Part:
    """One run of a sweep.

    Attributes:
        name: of the run.
        fields: its configuration, as nested dicts.
        references: names of the parts that it is scored with or begins with.
    """

    name: str
    fields: Mapping[str, Any]
    references: tuple[str, ...]

    @property
    def changes(self) -> dict[str, Any]:
        """What a record of this run says of its configuration."""
        return records.changes_of(self.fields)

    def changes_of_references(self, others: Mapping[str, "Part"]) -> dict[str, dict[str, Any]]:
        """What records say of the runs that this one rests on, by name."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.references:
            found |= {name: others[name].changes, **others[name].changes_of_references(others)}
        return found

    @property
    def steps(self) -> int:
        """Updates of the run."""
        return int(self.fields["steps"])

    def placed(self, folders: Mapping[str, str]) -> dict[str, Any]:
        """The configuration with its references' run directories in the place of their names."""

        def place(value: Any) -> Any:
            if not isinstance(value, Mapping):
                return value
            inner = {name: place(item) for name, item in value.items()}
            for group, field in _WEIGHTS:
                named = inner[group].get(field) if isinstance(inner.get(group), Mapping) else None
                if named:
                    inner[group] = {**inner[group], field: folders.get(named, named)}
            return inner

        found: dict[str, Any] = place(self.fields)
        return found


def parts(names: Sequence[str], get_config: Callable[[str], Any]) -> dict[str, Part]:
    """Makes the parts that are named and the references that they need, references first.

    Args:
        names: of a sweep's file.
        get_config: makes a part's `ConfigDict`.

    Raises:
        ConfigError: for a name that is no folder's, one that comes twice, or references
            that need each other.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ConfigError(f"RUNS names {twice[0]!r} twice")
    known = set(names)
    found: dict[str, Part] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ConfigError(f"{name!r} rests on itself: {' on '.join((*above, name))}")
        if name in found:
            return
        if not _NAME.fullmatch(name):
            raise ConfigError(f"RUNS: {name!r} names a folder: expected letters, digits and any of _.,=+-")
        if len(found) > _MOST_PARTS:
            raise ConfigError(f"RUNS: over {_MOST_PARTS:,} runs")
        fields = get_config(name).to_dict()
        flat = groups.flatten(fields)
        endings = tuple(f".{group}.{field}" for group, field in _WEIGHTS)
        given = [value for key, value in flat.items() if f".{key}".endswith(endings) and value]
        # A path is the run of another sweep, or of none; `hf:…` and its like are of another tool.
        needed = tuple(dict.fromkeys(v for v in given if v in known or not set(v) & set("/:")))
        for reference in needed:
            add(reference, (*above, name))
        found[name] = Part(name, fields, needed)

    for name in names:
        add(name, ())
    return found


def undone(wanted: Mapping[str, Part], done: Iterable[str], there: Iterable[str]) -> list[Part]:
    """The parts that are left to run, references first.

    Args:
        wanted: of `parts`.
        done: names of the runs that have a record.
        there: names of those whose checkpoints are there besides.

    Returns:
        What has no record, and the references that it needs if they are not there.
    """
    done, there = set(done), set(there)
    left: dict[str, Part] = {}

    def need(name: str, as_reference: bool) -> None:
        if name in left or (name in there if as_reference else name in done):
            return
        part = wanted[name]
        for reference in part.references:
            need(reference, True)
        left[name] = part

    for name in wanted:
        need(name, False)
    return list(left.values())


@dataclasses.dataclass(frozen=True)
class Line:
    """A run of a sweep beside its baseline.

    Attributes:
        name: of the run.
        baseline: name of the run that it is held against; empty if there is none.
        row: its figures.
    """

    name: str
    baseline: str
    row: groups.Row


def against(record: Record, baseline: Optional[Record], metric: str) -> Line:
    """A run's figures against those of its baseline, itself if there is no other."""
    run = record.run(metric)
    row = groups.Row(run, None if run.diverged_at is not None else curves.final(run.curve))
    if baseline is None:
        return Line(record.name, "", comparison.compare_row(row, None))
    other = baseline.run(metric)
    base = groups.Group(baseline.name, (groups.Row(other, curves.final(other.curve)),), is_baseline=True)
    return Line(record.name, baseline.name, comparison.compare_row(row, base))


# What a table has of a run: of `Row`, and of its record.
_COLUMNS = (
    "final", "target", "updates", "fewer_updates", "macs", "saving_paper", "saving_full", "corrupted",
    "wall_seconds", "cpu_seconds",
)  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """The runs as CSV, a line each; what is not known or was not reached is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "baseline", "status", "steps", "total_macs", *_COLUMNS))
    for line in lines:
        run = line.row.run
        values = [getattr(line.row, name) for name in _COLUMNS]
        total = run.ledger.get("total_macs")
        shown = ["" if value is None else f"{value:.6g}" for value in (total, *values)]
        writer.writerow((line.name, line.baseline, run.status, run.steps, *shown))
    return text.getvalue()
