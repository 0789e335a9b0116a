"""Runs that differ by their seed alone, as one group."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from classact.experiments import curves
from classact.experiments.curves import Run

# Runs that differ in nothing else are the seeds of one experiment. A reference
# of its own for each seed is part of that.
_WITHIN_GROUP = ("seed", "data_seed", "git_commit", "versions", "threads")
_CHECKPOINT = "reference.checkpoint"
_NAMED_DIFFERENCES = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """One run's figures; None is what is not known, or not reached.

    Attributes:
        run: the run.
        final: mean of the last three evaluations, a share.
        target: the baseline's final accuracy that the run is held against.
        updates: learner updates to reach the target.
        fewer_updates: share of the baseline's updates that were not needed.
        macs: everything spent until then, the reference's pretraining included.
        saving_paper: share of compute saved by the formula of Appendix A.1.
        saving_full: share of compute saved by the runs' own ledgers.
        wall_seconds: of the run.
        cpu_seconds: of all its processes.
        staleness: mean age of the scores at sampling, in learner updates.
        corrupted: share of corrupted labels among the examples trained on.
    """

    run: Run
    final: Optional[float]
    target: Optional[float] = None
    updates: Optional[float] = None
    fewer_updates: Optional[float] = None
    macs: Optional[float] = None
    saving_paper: Optional[float] = None
    saving_full: Optional[float] = None
    wall_seconds: Optional[float] = None
    cpu_seconds: Optional[float] = None
    staleness: Optional[float] = None
    corrupted: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone.

    Attributes:
        label: the policy's name, and what tells the group from others of that policy.
        rows: a row for each run, by seed.
        is_baseline: whether other groups are held against this one.
    """

    label: str
    rows: tuple[Row, ...]
    is_baseline: bool = False

    @property
    def policy(self) -> str:
        """The policy's name."""
        return self.rows[0].run.policy

    @property
    def counted(self) -> tuple[Row, ...]:
        """The rows that a mean is over: the completed runs', or all if none completed."""
        return tuple(row for row in self.rows if row.run.status == curves.COMPLETED) or self.rows

    def mean(self, column: str) -> Optional[float]:
        """Mean of a column over the counted rows; None unless each of them has a value.

        A mean over the seeds that reached a target would hide the others.
        """
        values = [getattr(row, column) for row in self.counted]
        return None if None in values else sum(values) / len(values)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups runs by everything but the seed, and names the groups.

    A group is named by its policy and, if there is another of that policy, by
    the fields in which they differ. Every label is used once.
    """
    by_key: dict[Any, list[Run]] = {}
    for run in runs:
        by_key.setdefault(experiment_key(run), []).append(run)
    for key, members in list(by_key.items()):
        if len({str(run.field("seed")) for run in members}) < len(members):
            # The same seed more than once: with another reference, it is another experiment.
            for run in by_key.pop(key):
                by_key.setdefault((*key, (_CHECKPOINT, repr(run.field(_CHECKPOINT)))), []).append(run)
    groups: dict[str, Group] = {}
    for key, members in by_key.items():
        members.sort(key=lambda run: (str(run.field("seed")), str(run.path)))
        same_policy = [other for other, others in by_key.items() if others[0].policy == members[0].policy]
        label = _label(members[0], key, same_policy)
        if label in groups:
            label = f"{label} ({members[0].path.name})"
        groups[label] = Group(label, tuple(Row(run, curves.final(run.curve)) for run in members))
    return list(groups.values())


def _label(run: Run, key: Sequence[tuple[str, str]], same_policy: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Names a group by its policy and the first few fields that others of that policy lack."""
    shared = set(key).intersection(*same_policy)
    differing = [name for name, _ in key if (name, dict(key)[name]) not in shared][:_NAMED_DIFFERENCES]
    return ", ".join([run.policy, *(f"{name} {run.field(name)}" for name in differing)])


def experiment_key(run: Run) -> tuple[tuple[str, str], ...]:
    """The fields that make an experiment, as pairs of dotted name and printed value."""
    fields = flatten({name: value for name, value in run.config.items() if name not in _WITHIN_GROUP})
    return tuple((name, repr(value)) for name, value in fields.items() if name != _CHECKPOINT)


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def shared_fields(groups: Sequence[Group]) -> dict[str, Any]:
    """The configuration fields in which all runs agree, by dotted names."""
    first, *others = [flatten(row.run.config) for group in groups for row in group.rows]
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
