"""What a reader of a comparison must know, in sentences."""

import pathlib
from collections.abc import Mapping, Sequence

from classact.experiments import curves, learned_classes
from classact.experiments.compare.differences import Difference
from classact.experiments.compare.groups import BASELINE_POLICY, Group
from classact.experiments.curves import Run


def headline(groups: Sequence[Group], without: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What makes figures worthless, or unlike what they seem.

    Runs that have diverged, baselines that have not come to the end of their schedule, and
    what but the policy a gain may come of.

    Args:
        groups: compared.
        without: by label of a group what it would be held against, had that not diverged.
    """
    return (*_diverged(groups, without), *_incomplete(groups), *_unlike(groups))


def notes(
    groups: Sequence[Group], without: Mapping[str, Sequence[str]], chosen: set[pathlib.Path]
) -> tuple[str, ...]:
    """What else there is to know: runs that are not complete, have no evaluations or no baseline.

    Args:
        groups: compared.
        without: as for `headline`.
        chosen: directories of the baseline that was asked for; empty: the uniform runs.
    """
    found = []
    apart = _apart(groups, chosen)
    for group in groups:
        for row in group.rows:
            run = row.run
            if run.diverged_at is not None:
                continue
            if run.status != curves.COMPLETED and not group.is_baseline:
                found.append(f"{run.path} is {run.status}, at update {run.steps:,}{_of_all(run)}.")
            if run.on_training_data:
                evaluator = run.metric.split("/")[1]
                found.append(
                    f"{run.path}: evaluator {evaluator} measures on training data: its figures do not "
                    "show how well the model does on other data."
                )
            if not run.curve:
                found.append(f"{run.path} has no evaluations of {run.metric}.")
        learner = group.rows[0].run.field("learner.model")
        lonely = not group.is_baseline and all(row.target is None for row in group.rows)
        told = without[group.label] or not group.counted or group.label in apart
        if lonely and not told and group.policy != BASELINE_POLICY:
            found.append(
                f"{group.label}: no evaluated uniform run with learner {learner} to compare it with."
            )
    return (*found, *apart.values())


def _apart(groups: Sequence[Group], chosen: set[pathlib.Path]) -> dict[str, str]:
    """What is said, by label, of groups without a baseline because they have learned other classes."""
    found = {}
    for group in groups:
        if group.is_baseline or any(row.target is not None for row in group.rows):
            continue
        for other in groups:
            if chosen:
                meant = bool({row.run.path.resolve() for row in other.rows} & chosen)
            else:
                meant = other.policy == BASELINE_POLICY != group.policy
            why = unlike_classes(group, other) if meant else ""
            if why:
                found[group.label] = f"{group.label} is not held against {other.label}: {why}."
                break
    return found


def unlike_classes(a: Group, b: Group) -> str:
    """By which classes two groups differ; empty if they do not."""
    return learned_classes.unlike(a.rows[0].run, b.rows[0].run)


def _diverged(groups: Sequence[Group], without: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said of each run that has diverged, and of what it leaves without a baseline."""
    said = [
        f"{row.run.path} has diverged, at update {row.run.diverged_at:,}{_of_all(row.run)}: "
        "it has no result, and nothing is held against it."
        for group in groups
        for row in group.diverged
    ]
    return said + [
        f"{group.label} has no baseline to compare it with: {' and '.join(without[group.label])} diverged."
        for group in groups
        if group.counted and without[group.label]
    ]


def _incomplete(groups: Sequence[Group]) -> list[str]:
    """What is said of each baseline run that has not come to the end of its schedule."""
    return [
        f"The baseline {row.run.path} is {row.run.status}, at update {row.run.steps:,}{_of_all(row.run)}: "
        "its final value is not that of its whole schedule."
        for group in groups
        for row in group.counted
        if group.is_baseline and row.run.status != curves.COMPLETED
    ]


def _unlike(groups: Sequence[Group]) -> list[str]:
    """What is said of each difference that a gain may come of, with all groups that have it."""
    having: dict[Difference, list[str]] = {}
    for group in groups:
        for difference in group.differences:
            if difference.consequence:
                having.setdefault(difference, []).append(group.label)
    return [f"{'; '.join(labels)}: {difference}." for difference, labels in having.items()]


def _of_all(run: Run) -> str:
    """How many updates a run was to have."""
    total = run.field("steps")
    return f" of {total:,}" if isinstance(total, int) else ""
