"""Compares groups of runs, each with the uniform baseline of the same learner.

A run is held against the baseline run of its own seed, or against the mean of
the baseline's seeds where that seed is missing. The target is the baseline's
final accuracy, and the baseline's cost is what it took itself to get there, by
the same rule (`classact.experiments.curves`). A run that has diverged is held
against nothing, and nothing against it.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from classact.experiments import curves, pretraining
from classact.experiments.compare import differences, remarks
from classact.experiments.compare.groups import BASELINE_POLICY, Group, Row, experiment_key, group_runs
from classact.experiments.compare.opponents import opponents, with_chance
from classact.experiments.compare.targets import Target, default_targets, reached
from classact.experiments.curves import Run, RunError
from classact.experiments.ledger import compute_speedup
from classact.selection import policies

PathLike = str | os.PathLike[str]

# What an evaluator of a kind is there for.
MAIN_METRICS = {"accuracy": ("top1",), "retrieval": ("i2t_r1", "t2i_r1"), "zero_shot": ("zero_shot_top1",)}

_PLURALS = {"accuracy": "accuracies", "recall": "recalls", "value": "values"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What there is to report.

    Attributes:
        groups: the baselines first, then in the order given.
        headline: what makes figures worthless, or unlike what they seem, one sentence each.
        notes: what a reader must know besides, one sentence each.
        metric: the metric compared.
        targets_tried: what `Row.at_targets` is of.
    """

    groups: tuple[Group, ...]
    headline: tuple[str, ...]
    notes: tuple[str, ...]
    metric: str
    targets_tried: tuple[Target, ...] = ()

    @property
    def measure(self) -> str:
        """What the metric is a share of right answers as: accuracy, or recall; maybe on training data."""
        everywhere = all(row.run.on_training_data for group in self.groups for row in group.rows)
        return f"{_measure(self.metric)}{' on training data' if everywhere else ''}"

    @property
    def targets(self) -> str:
        """What the runs learn, and noise makes wrong: labels, or captions."""
        tasks = {row.run.field("task") for group in self.groups for row in group.rows}
        return "captions" if "contrastive" in tasks else "labels"


def compare_metrics(
    run_dirs: Sequence[PathLike],
    baseline: PathLike | Sequence[PathLike] | None = None,
    metrics: Sequence[str] = (),
    targets: Sequence[float] = (),
    reference_runs: Optional[int] = None,
) -> tuple[Comparison, ...]:
    """Compares runs by several metrics; in all comparisons the groups are the same.

    Args:
        run_dirs: as for `compare`.
        baseline: as for `compare`.
        metrics: `eval/<evaluator>/<name>`, accuracies or recalls. By default, what
            each evaluator is there for (`MAIN_METRICS`), as far as all runs have it.
        targets: as for `compare`.
        reference_runs: as for `compare`.

    Raises:
        RunError: if a directory is no run, a file of it is damaged, or no run has
            one of the metrics; the message names those that there are.
        ValueError: if there is nothing to compare.
    """
    runs = [curves.load_run(path) for path in _unique(run_dirs, baseline)]
    configured = [main_metrics(run) for run in runs]
    found = dict.fromkeys(name for run in runs for name in curves.measured(run.path)) if metrics else {}
    found |= dict.fromkeys(name for names in configured for name in names)
    unknown = [metric for metric in metrics if metric not in found]
    if unknown:
        there = f"expected one of {', '.join(found)}" if found else "nor has any run another one"
        raise RunError(f"metric={unknown[0]!r}: no run has it, {there}")
    chosen = metrics or [name for name in found if all(name in names for names in configured)]
    if not chosen:
        raise RunError(
            f"no main metric is one of all runs: choose a metric of {', '.join(found)} by --metric"
        )
    return tuple(
        compare(run_dirs, baseline, metric, targets, reference_runs) for metric in dict.fromkeys(chosen)
    )


def compare(
    run_dirs: Sequence[PathLike],
    baseline: PathLike | Sequence[PathLike] | None = None,
    metric: str = curves.DEFAULT_METRIC,
    targets: Sequence[float] = (),
    reference_runs: Optional[int] = None,
) -> Comparison:
    """Loads runs, groups them, and holds each against its baseline.

    Args:
        run_dirs: the run directories; one given twice counts once.
        baseline: directory of the run to hold all others against, or several,
            its seeds. By default, for each learner model, the uniform runs among
            `run_dirs` that have it.
        metric: as for `curves.load_run`.
        targets: values of the metric at which to compare besides, shares from 0 to 1.
        reference_runs: among how many runs a reference's pretraining is shared; None: those
            of `run_dirs` that use it.

    Raises:
        RunError: if a directory is no run, or a file of it is damaged.
        ValueError: if there is nothing to compare.
    """
    runs = [curves.load_run(path, metric) for path in _unique(run_dirs, baseline)]
    shared = pretraining.shares(runs, reference_runs) if pretraining.is_paid(runs) else {}
    groups = group_runs(runs)
    chosen = {pathlib.Path(path).resolve() for path in _listed(baseline)}
    held_against = [_baseline_of(group, groups, chosen) for group in groups]
    used = {other.label for other in held_against if other is not None}
    tried = default_targets(targets)
    compared = [
        _compare(group, other, group.label in used, metric, tried, shared)
        for group, other in zip(groups, held_against, strict=True)
    ]
    compared = with_chance(compared)
    compared.sort(key=lambda group: not group.is_baseline)
    without = {group.label: _lost_baselines(group, compared, chosen) for group in compared}
    notes = remarks.notes(compared, without, chosen)
    return Comparison(tuple(compared), remarks.headline(compared, without), notes, metric, tried)


def macs_at(run: Run, step: float, pretraining: Optional[float] = None) -> Optional[float]:
    """Everything a run had spent at a learner step, the reference's pretraining included.

    Args:
        run: the run.
        step: the step.
        pretraining: MACs that it pays for its reference; None: all that it has cost.

    Returns:
        MACs, or None if the run has no ledger yet.
    """
    if not run.ledger.get("macs_per_update"):
        return None
    paid = run.ledger.get("reference_pretraining_macs", 0.0) if pretraining is None else pretraining
    return paid + step * run.ledger["macs_per_update"]


def _listed(baseline: PathLike | Sequence[PathLike] | None) -> Sequence[PathLike]:
    """The baseline's directories."""
    return [baseline] if isinstance(baseline, (str, os.PathLike)) else baseline or ()


def _unique(
    run_dirs: Sequence[PathLike], baseline: PathLike | Sequence[PathLike] | None
) -> list[pathlib.Path]:
    """The directories to load, each once, the baseline's first."""
    given = [pathlib.Path(path) for path in (*_listed(baseline), *run_dirs)]
    if not given:
        raise ValueError("nothing to compare: expected one or more run directories")
    return list({path.resolve(): path for path in reversed(given)}.values())[::-1]


def main_metrics(run: Run) -> list[str]:
    """What a run's evaluators are there for; before there were several, it was always the same."""
    evaluators = run.field("evaluation.evaluators")
    if not evaluators:
        return [curves.DEFAULT_METRIC]
    kinds = {name: run.field(f"evaluation.evaluators.{name}.kind") for name in evaluators}
    return [f"eval/{name}/{metric}" for name, kind in kinds.items() for metric in MAIN_METRICS.get(kind, ())]


def _measure(metric: str) -> str:
    """What a metric is: an accuracy, a recall, or just a value."""
    name = metric.split("/")[-1]
    if re.fullmatch(r"(.*_)?top[0-9]+", name):
        return "accuracy"
    return "recall" if re.fullmatch(r"(.*_)?r[0-9]+", name) else "value"


def _baseline_of(group: Group, groups: Sequence[Group], chosen: set[pathlib.Path]) -> Optional[Group]:
    """Returns the group that another is held against, or None if there is none of the same classes."""
    candidates = _candidates(group, groups, chosen)
    usable = [other for other in candidates if other.counted]
    return (
        None if group in candidates else max(usable, key=lambda other: _agreement(group, other), default=None)
    )


def _candidates(group: Group, groups: Sequence[Group], chosen: set[pathlib.Path]) -> list[Group]:
    """The groups that another could be held against, whether or not they have diverged."""
    groups = [other for other in groups if other is group or not remarks.unlike_classes(group, other)]
    if chosen:
        picked = [other for other in groups if {row.run.path.resolve() for row in other.rows} & chosen]
        return picked if group in picked else picked[:1]
    if group.policy == BASELINE_POLICY:
        return []
    learner = group.rows[0].run.field("learner.model")
    return [
        other
        for other in groups
        if other.policy == BASELINE_POLICY and other.rows[0].run.field("learner.model") == learner
    ]


def _agreement(a: Group, b: Group) -> int:
    """In how many fields two groups agree."""
    return len(set(experiment_key(a.rows[0].run)) & set(experiment_key(b.rows[0].run)))


def _compare(
    group: Group,
    baseline: Optional[Group],
    is_baseline: bool,
    metric: str,
    targets: Sequence[Target],
    shared: Mapping[pathlib.Path, float],
) -> Group:
    """Fills in a group's figures against those of its baseline, and how it differs from that."""
    against = baseline or (group if is_baseline else None)
    rows = [compare_row(row, against, targets, shared) for row in group.rows]
    pairs: list[tuple[Run, Run]] = []
    if baseline is not None:
        held = [row for row in rows if row.target is not None]
        pairs = [(row.run, other) for row in held for other in opponents(row, baseline)]
    evaluator, measures = metric.split("/")[1], _PLURALS[_measure(metric)]
    return dataclasses.replace(
        group,
        rows=tuple(rows),
        is_baseline=is_baseline,
        baseline=baseline.label if baseline is not None else None,
        differences=differences.differences(pairs, evaluator, measures),
    )


def compare_row(
    row: Row,
    baseline: Optional[Group],
    targets: Sequence[Target] = (),
    shared: Optional[Mapping[pathlib.Path, float]] = None,
) -> Row:
    """Fills in a run's figures against those of its baseline, if there is one.

    `shared` is of `pretraining.shares`.
    """
    run, result = row.run, row.run.result
    row = dataclasses.replace(
        row,
        wall_seconds=result.get("wall_seconds"),
        cpu_seconds=result.get("cpu_seconds"),
        staleness=run.learner_mean("selection/staleness_steps"),
        corrupted=run.learner_mean("selection/corrupted_fraction"),
        repeated=run.learner_mean("selection/repeated_fraction"),
        learned=run.learner_mean("train/top1"),
    )
    others = [] if baseline is None else opponents(row, baseline)
    if not others or run.diverged_at is not None:
        return row
    target = _mean([curves.final(other.curve) for other in others])
    if target is None:
        return row
    updates = curves.updates_to_reach(run.curve, target)
    macs = None if updates is None else macs_at(run, updates)
    base_updates, base_macs = _own_costs(others)
    savings = {}
    if shared and updates is not None:
        free = dict.fromkeys(shared, 0.0)
        savings = {
            name: _saving(run, updates, others, paid) for name, paid in (("shared", shared), ("free", free))
        }
    fewer = None if updates is None or not base_updates else 1.0 - updates / base_updates
    return dataclasses.replace(
        row,
        target=target,
        updates=updates,
        fewer_updates=fewer,
        macs=macs,
        saving_paper=None if fewer is None else _saving_by_paper(run, fewer),
        saving_full=None if macs is None or not base_macs else 1.0 - macs / base_macs,
        same_seed=len(others) == 1 and others[0].field("seed") == run.field("seed"),
        final_gain=None if row.final is None else row.final - target,
        at_targets=tuple(reached(run, others, wanted) for wanted in targets),
        saving_shared=savings.get("shared"),
        saving_free=savings.get("free"),
    )


def _saving(
    run: Run, updates: float, others: Sequence[Run], paid: Mapping[pathlib.Path, float]
) -> Optional[float]:
    """The share of compute saved if each run pays so much for its reference."""
    spent, base = macs_at(run, updates, paid[run.path]), _own_costs(others, paid)[1]
    return None if spent is None or not base else 1.0 - spent / base


def _own_costs(
    runs: Sequence[Run], paid: Optional[Mapping[pathlib.Path, float]] = None
) -> tuple[Optional[float], Optional[float]]:
    """Updates and MACs that runs took to reach their own final accuracy, on average."""
    updates = [curves.updates_to_reach(run.curve, curves.final(run.curve) or 0.0) for run in runs]
    pays = [None if paid is None else paid[run.path] for run in runs]
    macs = [macs_at(run, reached or 0.0, pay) for run, reached, pay in zip(runs, updates, pays, strict=True)]
    return _mean(updates), _mean(macs)


def _saving_by_paper(run: Run, learner_speedup: float) -> Optional[float]:
    """The saving by the formula of Appendix A.1; None if a part of it is not known."""
    f_learn, filter_ratio = run.ledger.get("learner_forward_macs"), run.field("filter_ratio")
    if not f_learn or not isinstance(filter_ratio, (int, float)) or run.policy not in policies.names():
        return None
    # It has no term for what was computed before.
    if policies.get(run.policy).prepared is not None or run.field("reference.scores"):
        return None
    f_scorer, rho = run.ledger.get("scorer_forward_macs", 0.0), 1.0 / (1.0 - filter_ratio)
    # Before a reference could be another model than the scorer, the scorer's were those of both.
    f_ref = run.ledger.get("reference_forward_macs", f_scorer)
    return compute_speedup(policies.get(run.policy), f_learn, f_ref, rho, learner_speedup, f_online=f_scorer)


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    """The mean, or None if there is no value or one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _lost_baselines(group: Group, groups: Sequence[Group], chosen: set[pathlib.Path]) -> list[str]:
    """The labels of what a group would be held against, had it not diverged."""
    if group.baseline is not None or group.is_baseline:
        return []
    candidates = _candidates(group, groups, chosen)
    return [other.label for other in candidates if other is not group and not other.counted]
