"""Which baseline runs a run is held against, and what chance alone would show against them."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Optional

from classact.experiments.compare import chance
from classact.experiments.compare.groups import Group, Row
from classact.experiments.curves import Run


def opponents(row: Row, baseline: Group) -> Sequence[Run]:
    """The baseline runs that a run is held against: that of its seed, or all."""
    usable = [other.run for other in baseline.counted if other.run.curve]
    if row.run.path in [run.path for run in usable]:
        return [row.run]
    same_seed = [run for run in usable if run.field("seed") == row.run.field("seed")]
    return same_seed or usable


def with_chance(groups: Sequence[Group]) -> list[Group]:
    """Fills in what two runs of one law would show, from the scatter of all runs compared."""
    finals = [[row.final for row in group.counted if row.final is not None] for group in groups]
    baselines = {group.label: group for group in groups if group.is_baseline}
    # Of one baseline run it is the same for all that are held against it.
    known: dict[pathlib.Path, Optional[chance.Chance]] = {}

    def of(row: Row, group: Group) -> Optional[chance.Chance]:
        baseline = baselines.get(group.baseline or "")
        others = [] if baseline is None or row.target is None else opponents(row, baseline)
        if len(others) != 1:
            return None
        path = others[0].path
        if path not in known:
            known[path] = chance.of_one_law(others[0].curve, finals)
        return known[path]

    return [
        dataclasses.replace(
            group, rows=tuple(dataclasses.replace(row, chance=of(row, group)) for row in group.rows)
        )
        for group in groups
    ]
