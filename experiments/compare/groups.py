"""Runs that differ by their seed alone, as one group."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from classact.experiments import curves, learned_classes
from classact.experiments.compare import statistics
from classact.experiments.compare.statistics import Paired
from classact.experiments.curves import Run
from classact.selection import policies

if TYPE_CHECKING:
    from classact.experiments.compare.chance import Chance
    from classact.experiments.compare.differences import Difference
    from classact.experiments.compare.targets import Reached

BASELINE_POLICY = "uniform"
# Runs that differ in nothing else are the seeds of one experiment. A reference of its
# own for each seed is part of that, as long as these differ by their seeds alone too.
_WITHIN_GROUP = (
    "seed", "data_seed", "git_commit", "versions", "started", "threads", "restarts_per_hour",
    "hung_seconds", "stop_notice_seconds", "resources",
)  # fmt: skip
# What makes no difference to a run that scores nothing.
_OF_SCORING = ("temperature", "scorer", "max_nonfinite_share")
_CHECKPOINT = "reference.checkpoint"
_PRETRAINING = "reference.pretraining_macs"
# Of several data sets the run's own field is the sum, or the names joined.
_SUMMARIES = ("policy", "train_data", "batch_size", "filter_ratio")
_EVALUATOR_DATA = re.compile(r"evaluation\.evaluators\.[^.]+\.data")
_NAMED_DIFFERENCES = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """One run's figures; None is what is not known, or not reached.

    A run that has diverged has neither a final accuracy nor anything that follows from one.

    Attributes:
        run: the run.
        final: mean of the last three evaluations, a share.
        target: the baseline's final accuracy that the run is held against.
        updates: learner updates to reach the target.
        fewer_updates: share of the baseline's updates that were not needed.
        macs: everything spent until then, the reference's pretraining included.
        saving_paper: share of compute saved by the formula of Appendix A.1.
        saving_full: share of compute saved by the runs' own ledgers, the reference's pretraining in full.
        saving_shared: the same with a part of it, see `pretraining`; None if no run has one.
        saving_free: the same without it.
        wall_seconds: of the run.
        cpu_seconds: of all its processes.
        staleness: mean age of the scores at sampling, in learner updates.
        corrupted: share of corrupted labels or captions among the examples trained on.
        repeated: share of the examples trained on that had been before.
        learned: share of them that the learner had right before it trained on them.
        same_seed: whether it is held against the baseline run of its own seed.
        final_gain: `final` minus the baseline's.
        at_targets: what it took to several targets; see `targets`.
        chance: what two runs of the baseline's law would show as `fewer_updates`.
    """

    run: Run
    final: Optional[float]
    target: Optional[float] = None
    updates: Optional[float] = None
    fewer_updates: Optional[float] = None
    macs: Optional[float] = None
    saving_paper: Optional[float] = None
    saving_full: Optional[float] = None
    saving_shared: Optional[float] = None
    saving_free: Optional[float] = None
    wall_seconds: Optional[float] = None
    cpu_seconds: Optional[float] = None
    staleness: Optional[float] = None
    corrupted: Optional[float] = None
    repeated: Optional[float] = None
    learned: Optional[float] = None
    same_seed: bool = False
    final_gain: Optional[float] = None
    at_targets: "tuple[Optional[Reached], ...]" = ()
    chance: "Optional[Chance]" = None


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone.

    Attributes:
        label: the policy's name, and what tells the group from others of that policy.
        rows: a row for each run, by seed.
        is_baseline: whether other groups are held against this one.
        baseline: label of the group that this one is held against; None if there is none.
        differences: from that one, besides what the policies imply.
    """

    label: str
    rows: tuple[Row, ...]
    is_baseline: bool = False
    baseline: Optional[str] = None
    differences: "tuple[Difference, ...]" = ()

    @property
    def policy(self) -> str:
        """The policy's name."""
        return self.rows[0].run.policy

    @property
    def counted(self) -> tuple[Row, ...]:
        """The completed runs' rows, or, if none completed, all but those that have diverged."""
        finite = tuple(row for row in self.rows if row not in self.diverged)
        return tuple(row for row in finite if row.run.status == curves.COMPLETED) or finite

    @property
    def diverged(self) -> tuple[Row, ...]:
        """The rows of the runs that have diverged."""
        return tuple(row for row in self.rows if row.run.diverged_at is not None)

    def paired(self, column: str) -> Optional[Paired]:
        """What a column of differences from the baseline shows over the seeds that both have.

        Args:
            column: `final_gain`, `fewer_updates` or `saving_full`.

        Returns:
            None unless each counted run that is held against its own seed has a value, and none
            has diverged: of the others alone a mean would hide the worst. And None for a baseline.
        """
        rows = [row for row in self.counted if row.same_seed]
        values = [getattr(row, column) for row in rows]
        if self.is_baseline or None in values or self.diverged:
            return None
        return statistics.paired(values)

    @property
    def reached(self) -> tuple[int, int]:
        """How many runs reached the baseline's final value, and of how many that tried."""
        tried = [row for row in self.rows if row.target is not None or row in self.diverged]
        return sum(row.updates is not None for row in tried), len(tried)

    def mean(self, column: str) -> Optional[float]:
        """Mean of a column over the counted rows; None unless each of them has a value.

        A mean over the seeds that reached a target would hide the others, and so would one
        over those that did not diverge; but as a baseline these count alone.
        """
        values = [getattr(row, column) for row in self.counted]
        if None in values or not values or (self.diverged and not self.is_baseline):
            return None
        return sum(values) / len(values)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups runs by everything but the seed, and names the groups.

    A group is named by its policy and, if there is another of that policy, by
    the fields in which they differ. Every label is used once.
    """
    references = [path for run in runs for path in _references(run).values()]
    # Only if all of them are still there to say how they were trained.
    known = all((path / "config.json").is_file() for path in references)
    by_key: dict[Any, list[Run]] = {}
    for run in runs:
        key = (*experiment_key(run), *(_trained_as(run) if known else ()))
        by_key.setdefault(key, []).append(run)
    for key, members in list(by_key.items()):
        if len({str(run.field("seed")) for run in members}) < len(members):
            # The same seed more than once: with another reference, it is another experiment.
            for run in by_key.pop(key):
                by_key.setdefault((*key, *_pairs(run, checkpoints=True)), []).append(run)
    groups: dict[str, Group] = {}
    for key, members in by_key.items():
        members.sort(key=lambda run: (str(run.field("seed")), str(run.path)))
        same_policy = [other for other, others in by_key.items() if others[0].policy == members[0].policy]
        label = _label(members[0], key, same_policy)
        if label in groups:
            label = f"{label} ({members[0].path})"
        groups[label] = Group(label, tuple(Row(run, _final(run)) for run in members))
    return list(groups.values())


def _final(run: Run) -> Optional[float]:
    """A run's final accuracy; None also if it has diverged."""
    return None if run.diverged_at is not None else curves.final(run.curve)


def _label(run: Run, key: Sequence[tuple[str, str]], same_policy: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Names a group by its policy and the first few fields that others of that policy lack."""
    shared = set(key).intersection(*same_policy)
    differing = [name for name, value in key if (name, value) not in shared]
    # The run's own train_data say what those of its data sets are.
    told = [
        name for name in differing if name.startswith("data_sets.") and name.split(".", 2)[2] in differing
    ]
    # A reference can be there twice, with its experiment and with its path.
    named = [name for name in dict.fromkeys(differing) if name not in told]
    own = config_fields(run)
    return ", ".join([run.policy, *(_difference(name, own[name]) for name in named[:_NAMED_DIFFERENCES])])


def _difference(name: str, value: Any) -> str:
    """A field in a label; of a reference the directory's name will do."""
    name = name.removeprefix("data_sets.")
    if name.endswith(_CHECKPOINT):
        return f"{name.removesuffix('.checkpoint')} {pathlib.PurePath(value).name.removeprefix('reference_')}"
    return f"no {name}" if value == "" else f"{name} {value}"


def experiment_key(run: Run) -> tuple[tuple[str, str], ...]:
    """The fields that make an experiment, references aside, as pairs of dotted name and printed value."""
    ignored = _WITHIN_GROUP if _scores(run) else (*_WITHIN_GROUP, *_OF_SCORING)
    return tuple(
        (name, value) for name, value in _pairs(run, checkpoints=False) if name.split(".")[0] not in ignored
    )


def _references(run: Run) -> dict[str, pathlib.Path]:
    """The directories of a run's references, by the fields that name them."""
    fields = config_fields(run)
    return {name: pathlib.Path(path) for name, path in fields.items() if name.endswith(_CHECKPOINT) and path}


def _trained_as(run: Run) -> tuple[tuple[str, str], ...]:
    """By field the experiment that a reference was trained by itself."""
    return tuple(
        (name, repr(experiment_key(curves.load_run(path)))) for name, path in _references(run).items()
    )


def _scores(run: Run) -> bool:
    """Whether a run selects by scores; what is not known here may."""
    return run.policy not in policies.names() or policies.get(run.policy).scores


def _pairs(run: Run, checkpoints: bool) -> list[tuple[str, str]]:
    """Names and printed values of the references that a run has, or of everything else."""
    return [
        (name, repr(value))
        for name, value in config_fields(run).items()
        if name.endswith(_CHECKPOINT) == checkpoints and (value or not checkpoints)
    ]


def config_fields(run: Run) -> dict[str, Any]:
    """A run's configuration by dotted names, each thing once.

    A value that all data sets share stands for the run's own field, and only what
    they differ in is `data_sets.<name>.<field>`. An evaluator's data are there if
    they do not follow from `eval_data` and `train_data`, `eval_share` if something was held out.
    """
    flat = flatten({name: value for name, value in run.config.items() if name != "data_sets"})
    data_sets = {name: flatten(own) for name, own in (run.field("data_sets") or {}).items()}
    first = next(iter(data_sets.values()), {})
    for field in first:
        agreed = all(repr(own.get(field)) == repr(first[field]) for own in data_sets.values())
        if field not in _SUMMARIES:
            flat[field] = first[field]
        if not agreed:
            flat |= {f"data_sets.{name}.{field}": own.get(field) for name, own in data_sets.items()}
            if field not in _SUMMARIES:
                del flat[field]
    if not _holds_out(run):
        flat.pop("eval_share", None)
    # Runs of earlier versions say nothing of it.
    flat = {name: value for name, value in flat.items() if not (name.endswith(_PRETRAINING) and value == -1)}
    evaluated = flat.get("eval_data") or first.get("train_data") or flat.get("train_data")
    named = learned_classes.in_words(run)
    if named:
        flat["classes"] = named
    return {
        name: value
        for name, value in flat.items()
        if not (_EVALUATOR_DATA.fullmatch(name) and value == evaluated)
    }


def _holds_out(run: Run) -> bool:
    """Whether a part of the training data was held out by `eval_share`; else it says nothing."""
    started = run.field("started.data")
    data_sets = started.values() if isinstance(started, Mapping) else ()
    return any(isinstance(found, Mapping) and found.get("held_out_examples") for found in data_sets)


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
    first, *others = [config_fields(row.run) for group in groups for row in group.rows]
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
