"""Compares groups of runs, each with the uniform baseline of the same learner.

A run is held against the baseline run of its own seed, or against the mean of
the baseline's seeds where that seed is missing. The target is the baseline's
final accuracy, and the baseline's cost is what it took itself to get there, by
the same rule (`classact.experiments.curves`).
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Optional, Union

from classact.experiments import curves, learned_classes
from classact.experiments.curves import Run, RunError
from classact.experiments.groups import Group, Row, config_fields, experiment_key, group_runs
from classact.experiments.ledger import compute_speedup
from classact.selection import policies

PathLike = Union[str, "os.PathLike[str]"]

# What an evaluator of a kind is there for.
MAIN_METRICS = {"accuracy": ("top1",), "retrieval": ("i2t_r1", "t2i_r1"), "zero_shot": ("zero_shot_top1",)}

# What must not differ between runs that are compared, and why.
_COMPARABLE = {
    "eval_data": "their {measures} are on different data",
    "evaluation.evaluators.{evaluator}.templates": "their classes are named in different prompts",
    "evaluation.evaluators.{evaluator}.distinct": "their {measures} are among different pairs",
    "train_data": "they learn from different data",
    "classes": "their {measures} are of different classes",
    "label_noise": "they learn from different labels",
    "caption_noise": "they learn from different captions",
    "steps": "their learning-rate schedules have different lengths",
    "batch_size": "their updates are of different sizes",
}
BASELINE_POLICY = "uniform"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What there is to report.

    Attributes:
        groups: the baselines first, then in the order given.
        notes: what a reader must know before comparing, one sentence each.
        metric: the metric compared.
    """

    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    metric: str

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
    baseline: Union[None, PathLike, Sequence[PathLike]] = None,
    metrics: Sequence[str] = (),
) -> tuple[Comparison, ...]:
    """Compares runs by several metrics; in all comparisons the groups are the same.

    Args:
        run_dirs: as for `compare`.
        baseline: as for `compare`.
        metrics: `eval/<evaluator>/<name>`, accuracies or recalls. By default, what
            each evaluator is there for (`MAIN_METRICS`), as far as all runs have it.

    Raises:
        RunError: if a directory is no run, a file of it is damaged, or no run has
            one of the metrics; the message names those that there are.
        ValueError: if there is nothing to compare.
    """
    runs = [curves.load_run(path) for path in _unique(run_dirs, baseline)]
    configured = [_main_metrics(run) for run in runs]
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
    return tuple(compare(run_dirs, baseline, metric) for metric in dict.fromkeys(chosen))


def compare(
    run_dirs: Sequence[PathLike],
    baseline: Union[None, PathLike, Sequence[PathLike]] = None,
    metric: str = curves.DEFAULT_METRIC,
) -> Comparison:
    """Loads runs, groups them, and holds each against its baseline.

    Args:
        run_dirs: the run directories; one given twice counts once.
        baseline: directory of the run to hold all others against, or several,
            its seeds. By default, for each learner model, the uniform runs among
            `run_dirs` that have it.
        metric: as for `curves.load_run`.

    Raises:
        RunError: if a directory is no run, or a file of it is damaged.
        ValueError: if there is nothing to compare.
    """
    groups = group_runs([curves.load_run(path, metric) for path in _unique(run_dirs, baseline)])
    chosen = {pathlib.Path(path).resolve() for path in _listed(baseline)}
    held_against = [_baseline_of(group, groups, chosen) for group in groups]
    used = {other.label for other in held_against if other is not None}
    compared = [
        dataclasses.replace(
            group,
            rows=tuple(
                _compare_row(row, other or (group if group.label in used else None)) for row in group.rows
            ),
            is_baseline=group.label in used,
        )
        for group, other in zip(groups, held_against, strict=True)
    ]
    compared.sort(key=lambda group: not group.is_baseline)
    notes = (*_notes(compared), *_apart(compared, chosen), *_differences(compared, metric))
    return Comparison(tuple(compared), notes, metric)


def macs_at(run: Run, step: float) -> Optional[float]:
    """Everything a run had spent at a learner step, the reference's pretraining included.

    Returns:
        MACs, or None if the run has no ledger yet.
    """
    if not run.ledger.get("macs_per_update"):
        return None
    return run.ledger.get("reference_pretraining_macs", 0.0) + step * run.ledger["macs_per_update"]


def _listed(baseline: Union[None, PathLike, Sequence[PathLike]]) -> Sequence[PathLike]:
    """The baseline's directories."""
    return [baseline] if isinstance(baseline, (str, os.PathLike)) else baseline or ()


def _unique(
    run_dirs: Sequence[PathLike], baseline: Union[None, PathLike, Sequence[PathLike]]
) -> list[pathlib.Path]:
    """The directories to load, each once, the baseline's first."""
    given = [pathlib.Path(path) for path in (*_listed(baseline), *run_dirs)]
    if not given:
        raise ValueError("nothing to compare: expected one or more run directories")
    return list({path.resolve(): path for path in reversed(given)}.values())[::-1]


def _main_metrics(run: Run) -> list[str]:
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
    groups = [other for other in groups if other is group or not _unlike(group, other)]
    if chosen:
        picked = [other for other in groups if {row.run.path.resolve() for row in other.rows} & chosen]
        return None if group in picked or not picked else picked[0]
    if group.policy == BASELINE_POLICY:
        return None
    learner = group.rows[0].run.field("learner.model")
    candidates = [
        other
        for other in groups
        if other.policy == BASELINE_POLICY and other.rows[0].run.field("learner.model") == learner
    ]
    return max(candidates, key=lambda other: _agreement(group, other), default=None)


def _unlike(a: Group, b: Group) -> str:
    """By which classes two groups differ; empty if they do not."""
    return learned_classes.unlike(a.rows[0].run, b.rows[0].run)


def _agreement(a: Group, b: Group) -> int:
    """In how many fields two groups agree."""
    return len(set(experiment_key(a.rows[0].run)) & set(experiment_key(b.rows[0].run)))


def _compare_row(row: Row, baseline: Optional[Group]) -> Row:
    """Fills in a run's figures against those of its baseline."""
    run, result = row.run, row.run.result
    row = dataclasses.replace(
        row,
        wall_seconds=result.get("wall_seconds"),
        cpu_seconds=result.get("cpu_seconds"),
        staleness=run.learner_mean("selection/staleness_steps"),
        corrupted=run.learner_mean("selection/corrupted_fraction"),
    )
    others = [] if baseline is None else _opponents(row, baseline)
    if not others:
        return row
    target = _mean([curves.final(other.curve) for other in others])
    if target is None:
        return row
    updates = curves.updates_to_reach(run.curve, target)
    macs = None if updates is None else macs_at(run, updates)
    base_updates, base_macs = _own_costs(others)
    fewer = None if updates is None or not base_updates else 1.0 - updates / base_updates
    return dataclasses.replace(
        row,
        target=target,
        updates=updates,
        fewer_updates=fewer,
        macs=macs,
        saving_paper=None if fewer is None else _saving_by_paper(run, fewer),
        saving_full=None if macs is None or not base_macs else 1.0 - macs / base_macs,
    )


def _opponents(row: Row, baseline: Group) -> list[Run]:
    """The baseline runs that a run is held against: that of its seed, or all."""
    usable = [other.run for other in baseline.counted if other.run.curve]
    if row.run.path in [run.path for run in usable]:
        return [row.run]
    same_seed = [run for run in usable if run.field("seed") == row.run.field("seed")]
    return same_seed or usable


def _own_costs(runs: Sequence[Run]) -> tuple[Optional[float], Optional[float]]:
    """Updates and MACs that runs took to reach their own final accuracy, on average."""
    updates = [curves.updates_to_reach(run.curve, curves.final(run.curve) or 0.0) for run in runs]
    macs = [macs_at(run, reached or 0.0) for run, reached in zip(runs, updates, strict=True)]
    return _mean(updates), _mean(macs)


def _saving_by_paper(run: Run, learner_speedup: float) -> Optional[float]:
    """The saving by the formula of Appendix A.1; None if a part of it is not known."""
    f_learn, filter_ratio = run.ledger.get("learner_forward_macs"), run.field("filter_ratio")
    if not f_learn or not isinstance(filter_ratio, (int, float)) or run.policy not in policies.names():
        return None
    f_ref, rho = run.ledger.get("scorer_forward_macs", 0.0), 1.0 / (1.0 - filter_ratio)
    return compute_speedup(policies.get(run.policy), f_learn, f_ref, rho, learner_speedup)


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    """The mean, or None if there is no value or one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _notes(groups: Sequence[Group]) -> list[str]:
    """What a reader must know before comparing."""
    notes = []
    for group in groups:
        for row in group.rows:
            run = row.run
            if run.status != curves.COMPLETED:
                total = run.field("steps")
                of = f" of {total:,}" if isinstance(total, int) else ""
                notes.append(f"{run.path} is {run.status}, at update {run.steps:,}{of}.")
            if run.on_training_data:
                evaluator = run.metric.split("/")[1]
                notes.append(
                    f"{run.path}: evaluator {evaluator} measures on training data: its figures do not "
                    "show how well the model does on other data."
                )
            if not run.curve:
                notes.append(f"{run.path} has no evaluations of {run.metric}.")
        learner = group.rows[0].run.field("learner.model")
        lonely = not group.is_baseline and all(row.target is None for row in group.rows)
        if lonely and group.policy != BASELINE_POLICY:
            notes.append(
                f"{group.label}: no evaluated uniform run with learner {learner} to compare it with."
            )
    return notes


def _apart(groups: Sequence[Group], chosen: set[pathlib.Path]) -> list[str]:
    """A note for each group that is held against no baseline because it has other classes."""
    notes = []
    for group in groups:
        if group.is_baseline or any(row.target is not None for row in group.rows):
            continue
        for other in groups:
            if chosen:
                meant = bool({row.run.path.resolve() for row in other.rows} & chosen)
            else:
                meant = other.policy == BASELINE_POLICY != group.policy
            why = _unlike(group, other) if meant else ""
            if why:
                notes.append(f"{group.label} is not held against {other.label}: {why}.")
                break
    return notes


def _differences(groups: Sequence[Group], metric: str) -> list[str]:
    """A note for each thing that runs held against each other do not have in common."""
    notes, evaluator = [], metric.split("/")[1]
    measures = {"accuracy": "accuracies", "recall": "recalls", "value": "values"}[_measure(metric)]
    runs = [
        group.rows[0].run
        for group in groups
        if group.is_baseline or any(row.target is not None for row in group.rows)
    ]
    for template, consequence in _COMPARABLE.items():
        name = template.format(evaluator=evaluator)
        # What a run's version did not know of yet is no difference.
        values = sorted({_setting(run, name, evaluator) for run in runs} - {""})
        if len(values) > 1:
            because = consequence.format(measures=measures)
            notes.append(f"The runs differ in {name} ({', '.join(values)}): {because}.")
    return notes


def _setting(run: Run, name: str, evaluator: str) -> str:
    """A field's value, with several data sets that of each; empty if there is none."""
    if name == "eval_data":
        own = run.field(f"evaluation.evaluators.{evaluator}.data")
        return str(own or run.field("eval_data") or run.field("train_data"))
    fields = config_fields(run)
    each = [value for field, value in fields.items() if re.fullmatch(rf"data_sets\.[^.]+\.{name}", field)]
    return str(fields[name]) if name in fields else " + ".join(map(str, each))
