"""What differs between a run and the baseline that it is held against.

Everything that the two configurations record is compared, but for what is named here: a
new field cannot be forgotten. What only one of them has is no difference: the other's
version did not know of it.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from classact.experiments.compare.groups import config_fields, flatten
from classact.experiments.curves import Run

# What a policy implies: which models score, by what, and where the scored examples wait.
_OF_THE_POLICY = (
    "policy", "filter_ratio", "temperature", "score_shift", "max_nonfinite_share", "scorer", "reference",
    "replay", "inference",
)  # fmt: skip
# What makes no difference to what a run computes; `seed` is what pairs the runs, and of
# `started` what was found of the data is compared below.
_WITHOUT_EFFECT = (
    "seed", "log_every", "checkpoint_every", "record_examples", "no_data_seconds", "restarts_per_hour",
    "hung_seconds", "stop_notice_seconds", "threads", "cluster", "resources", "evaluation.batch_size",
    "started",
)  # fmt: skip
# Groups of a user's own fields: one that is not there has its default.
_OPTIONAL = ("learner.options",)
# Of several data sets the run's own field is the sum.
_SUMMED = ("batch_size",)

# Fields that name data, and where it is recorded what these held.
_CONTENTS = {"train_data": "data", "eval_data": "eval_data"}
_OTHER_DATA = "they learn from different data"
# What a difference makes of the comparison, where that is more than a remark.
_CONSEQUENCES = {
    "eval_data": "their {measures} are on different data",
    "templates": "their classes are named in different prompts",
    "distinct": "their {measures} are among different pairs",
    "task": "they learn different tasks",
    "train_data": _OTHER_DATA,
    "data.fingerprint": _OTHER_DATA,
    "classes": "their {measures} are of different classes",
    "train_split": "they learn from different parts of the data",
    "label_noise": "they learn from different labels",
    "caption_noise": "they learn from different captions",
    "learner.model": "they train different models",
    "learner.init": "they start from different weights",
    "steps": "their learning-rate schedules have different lengths",
    "warmup_steps": "their learning-rate schedules differ",
    "learning_rate": "a gain may be that of the learning rate",
    "optimizer": "a gain may be that of the optimiser",
    "learner.freeze": "they train different parts of the model",
    "batch_size": "their updates are of different sizes",
}
_LONGEST = 60
_COMMIT, _COMMIT_SHOWN = re.compile("[0-9a-f]{40}"), 12


@dataclasses.dataclass(frozen=True)
class Difference:
    """A field in which a run and its baseline differ.

    Attributes:
        field: its dotted name; of what was found of the data, `data.<name>`.
        value: the run's, for people.
        baseline: the baseline's.
        consequence: why a gain may come of it, or the figures do not compare; "" if it is
            just to be known.
    """

    field: str
    value: str
    baseline: str
    consequence: str = ""

    def __str__(self) -> str:
        because = f": {self.consequence}" if self.consequence else ""
        return f"{self.field} {self.value} (baseline {self.baseline}){because}"


def differences(pairs: Sequence[tuple[Run, Run]], evaluator: str, measures: str) -> tuple[Difference, ...]:
    """Lists in which fields runs differ from the baseline runs that they are held against.

    Args:
        pairs: a run and a baseline run each; of one group, so that each field is listed once.
        evaluator: of the metric compared; how others measure is no matter.
        measures: what the metric's values are called: accuracies, or recalls.

    Returns:
        Those with a consequence first, otherwise in the configuration's order.
    """
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    same = dict.fromkeys(_CONTENTS, True)
    for run, baseline in pairs:
        ours, theirs = _settings(run, evaluator), _settings(baseline, evaluator)
        same = {name: known and _same_contents(ours, theirs, _CONTENTS[name]) for name, known in same.items()}
        for name, value, other in _differing(ours, theirs):
            values, others = found.setdefault(name, ({}, {}))
            values[_text(value)] = others[_text(other)] = None
    listed = [
        Difference(
            name,
            ", ".join(values),
            ", ".join(others),
            "" if same.get(name) else _consequence(name, evaluator, measures),
        )
        for name, (values, others) in found.items()
    ]
    return tuple(sorted(listed, key=lambda difference: not difference.consequence))


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields the fields in which two runs differ, with both values."""
    tasks = {settings.get("task", "classification") for settings in (ours, theirs)}
    for name in {**ours, **theirs}:
        if tasks == {"classification"} and _within(name, ("contrastive",)):
            continue
        both = name in ours and name in theirs
        # An option counts as given if the other run knows of options at all.
        known = both or any(
            _within(name, (group,)) and group in ours and group in theirs for group in _OPTIONAL
        )
        if known and ours.get(name) != theirs.get(name):
            yield name, ours.get(name), theirs.get(name)


def _settings(run: Run, evaluator: str) -> dict[str, Any]:
    """What is compared of a run, by dotted names.

    Of several data sets a field is a tuple of theirs, if these are not all the same. What
    was found of the training data is `data.<name>`, and of what is measured on
    `eval_data.<name>`.
    """
    sets = run.field("data_sets") or {}
    flat = config_fields(run) | _of_all(sets)
    flat |= {group: None for group in _OPTIONAL if isinstance(run.field(group), Mapping)}
    if len(sets) < 2:
        # In the mean over one loss it is no matter.
        flat.pop("weight", None)
    ignored = (*_OF_THE_POLICY, *_WITHOUT_EFFECT, "data_sets", "evaluation.evaluators")
    flat = {name: value for name, value in flat.items() if not _within(name, ignored)}
    measured = flatten(run.field(f"evaluation.evaluators.{evaluator}") or {})
    data = measured.pop("data", None) or run.field("eval_data") or run.field("train_data")
    flat |= {f"evaluation.evaluators.{evaluator}.{name}": value for name, value in measured.items()}
    started = run.field("started.eval_data") or {}
    found = {
        **{f"data.{name}": value for name, value in _of_all(run.field("started.data") or {}).items()},
        **{f"eval_data.{name}": value for name, value in flatten(started.get(evaluator) or {}).items()},
    }
    # What is empty is not known, how examples are packed follows from the rest, and
    # `classes` says what the labels mean.
    found = {
        name: value
        for name, value in found.items()
        if value not in ("", None)
        and not _within(name, ("data.record", "data.class_names", "data.num_classes"))
    }
    return flat | {"eval_data": data} | found


def _of_all(sets: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of all data sets: one value where they agree, else a tuple."""
    each = [flatten(fields) for fields in sets.values() if isinstance(fields, Mapping)]
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for fields in each for name in fields):
        values = tuple(fields.get(name) for fields in each)
        agreed = all(value == values[0] for value in values) and name not in _SUMMED
        found[name] = values[0] if agreed or len(values) == 1 else values
    return found


def _within(name: str, groups: Sequence[str]) -> bool:
    """Whether a field is one of some, or of a group among them."""
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _same_contents(ours: Mapping[str, Any], theirs: Mapping[str, Any], kind: str) -> bool:
    """Whether two runs are known to have had the same data of a kind, by whatever name."""
    prints = [
        {name: value for name, value in settings.items() if _within(name, (f"{kind}.fingerprint",))}
        for settings in (ours, theirs)
    ]
    # Sizes alone do not show it, a digest does.
    return prints[0] == prints[1] and any(isinstance(value, str) for value in prints[0].values())


def _consequence(name: str, evaluator: str, measures: str) -> str:
    name = name.removeprefix(f"evaluation.evaluators.{evaluator}.")
    of = next((consequence for field, consequence in _CONSEQUENCES.items() if _within(name, (field,))), "")
    return of.format(measures=measures)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " + ".join(map(_text, value))
    if value in (None, ""):
        return "not set" if value is None else "empty"
    text = str(value)
    if _COMMIT.fullmatch(text):
        return text[:_COMMIT_SHOWN]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
