"""Who pays for a reference: the run that uses it, all runs that do, or nobody.

Training a reference is charged in full where one run uses it once. One that steers many runs
costs each of them a part, and one that was there anyway (taken off the shelf, as the
paper's Figure 2 has it) costs nothing. A comparison shows all three.
"""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Optional

from classact.experiments.curves import Run


def is_paid(runs: Sequence[Run]) -> bool:
    """Whether any of the runs has a reference that has cost something."""
    return any(any(of_references(run).values()) for run in runs)


def of_references(run: Run) -> Mapping[str, float]:
    """MACs of a run's fixed references, by what names them: as long as they are named alike, they are one."""
    found = run.result.get("reference_pretraining")
    total = run.ledger.get("reference_pretraining_macs", 0.0)
    if not isinstance(found, Mapping):
        # A run of an earlier version has told only the sum.
        data_sets = run.field("data_sets") or {}
        names = {str(run.field(f"data_sets.{name}.reference.checkpoint") or "") for name in data_sets}
        names |= {str(run.field("reference.checkpoint") or "")}
        # Without a name nobody else is known to use it.
        known = "+".join(sorted(name for name in names if name)) or str(run.path.resolve())
        found = {known: total} if total else {}
    place = pathlib.Path(str(run.field("started.directory") or ""))
    return {str((place / name).resolve()): float(macs) for name, macs in found.items()}


def shares(runs: Sequence[Run], reference_runs: Optional[int] = None) -> dict[pathlib.Path, float]:
    """What each run pays if a reference's pretraining is shared among those that use it.

    Args:
        runs: the runs that are compared.
        reference_runs: how many use each reference; None: those among `runs` that do.

    Returns:
        MACs, by the run's directory.

    Raises:
        ValueError: if `reference_runs` is less than 1.
    """
    if reference_runs is not None and reference_runs < 1:
        raise ValueError(f"reference_runs={reference_runs}: expected at least 1")
    users = collections.Counter(name for run in runs for name in of_references(run))
    return {
        run.path: sum(macs / (reference_runs or users[name]) for name, macs in of_references(run).items())
        for run in runs
    }
