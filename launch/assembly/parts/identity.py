"""Whether data are what they were: for a run that goes on, and for who joins one.

A run writes into `config.json`, under `started`, a fingerprint of each data set that it
trains on (`data`) and measures on (`eval_data`). Whoever opens the data again compares
theirs with it before anything starts. A run that was made before there were fingerprints
has none, and is not checked.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from classact.data import fingerprint as fingerprint_lib
from classact.data import specs
from classact.data.fingerprint import difference, same_contents
from classact.data.source import DataError, Source
from classact.data.views import SourceView
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly.parts import held_out, recorded, reference_models, shapes, sources
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.selection import policies

_SAMPLE = 8
TRAINING_DATA = "training data"


@dataclasses.dataclass(frozen=True)
class Checked:
    """What is known of a run's data once all of them are opened.

    Attributes:
        data: the shapes of the data sets that it trains on, with the evaluators that measure on them.
        evaluated: by evaluator what `config.json` says of its data.
    """

    data: Mapping[str, shapes.DataShape]
    evaluated: Mapping[str, Mapping[str, Any]]


def check(
    config: ExperimentConfig, workdir: pathlib.Path, data: Mapping[str, shapes.DataShape], said: FirstLines
) -> Checked:
    """Compares all data of a run with those that it began with, and tells what it measures on.

    Args:
        config: the resolved configuration.
        workdir: the run directory; there may be no run in it.
        data: the shapes of the data sets that it trains on.
        said: is told where an evaluator measures on training data.

    Raises:
        ConfigError: if the run in the directory began with other data; it says what changed.
        source.DataError: if the data of an evaluator cannot be opened.
    """
    evaluated, trained_on = {}, {}
    for name, evaluator in config.evaluation.evaluators.items():
        opened = sources.open_eval_source(config, evaluator)
        fingerprint = fingerprint_lib.fingerprint(opened).described()
        known = {own: shape.described()["fingerprint"] for own, shape in data.items()}
        trained_on[name] = _trained_on(config, evaluator.data, opened, known)
        evaluated[name] = {
            "fingerprint": fingerprint,
            "examples": opened.num_examples,
            **({"on": TRAINING_DATA} if trained_on[name] else {}),
        }
        if trained_on[name]:
            said.warn(
                f"evaluator {name} measures on training data, {evaluator.data}: its figures do not show how "
                "well the model does on other data (eval_data or eval_share give it some)"
            )
    _check_unchanged(config, workdir, data, evaluated)
    for own, shape in data.items():
        _warn_of_reference(config, own, shape, said)
    return Checked(
        {
            own: dataclasses.replace(
                shape, measured_by=tuple(name for name, found in trained_on.items() if own in found)
            )
            for own, shape in data.items()
        },
        evaluated,
    )


def measures_on_training_data(config: ExperimentConfig, spec: str, opened: Source, started: Any) -> bool:
    """Whether an evaluator that joins a run measures on what the run trains on.

    Args:
        config: of the run.
        spec: of the evaluator's data.
        opened: these.
        started: of the run's `config.json`.
    """
    return bool(_trained_on(config, spec, opened, dict(recorded.fingerprints(started, "data"))))


def change(before: Any, shape: shapes.DataShape) -> str:
    """In what a data set differs from what `config.json` says of it; empty if in nothing that is known."""
    now = shape.described()
    changed = difference(recorded.group(recorded.group(before).get("fingerprint")), now["fingerprint"])
    held, theirs = now["held_out_examples"], recorded.group(before).get("held_out_examples", 0)
    if not changed and held != theirs:
        changed = f"{held:,} examples are held out instead of {theirs:,}"
    return changed


def check_here(opened: Source, shape: shapes.DataShape) -> None:
    """Checks that a node has opened what the run was started with: it may be elsewhere, or started anew.

    Raises:
        source.DataError: if it has not; it says what differs.
    """
    if shape.fingerprint is None:
        return
    changed = difference(shape.fingerprint.described(), fingerprint_lib.fingerprint(opened).described())
    if changed:
        raise DataError(f"{opened.name} is not what the run was started with: {changed}")


def change_of_evaluated(started: Any, spec: str, config: ExperimentConfig, opened: Source) -> str:
    """In what data differ from those of the run's own evaluators with the same spec; empty if in nothing."""
    known = dict(recorded.fingerprints(started, "eval_data"))
    for name, evaluator in config.evaluation.evaluators.items():
        if evaluator.data == spec:
            return difference(known.get(name, {}), fingerprint_lib.fingerprint(opened).described())
    return ""


def _trained_on(
    config: ExperimentConfig, spec: str, opened: Source, known: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The data sets that are trained on of which an evaluator's data are a part."""
    fingerprint = fingerprint_lib.fingerprint(opened)
    found = []
    for name, own in config.data_sets.items():
        if opened.has_splits:
            same = own.train_data == spec and not fingerprint.digest and _is_its_train_split(spec, opened)
        elif own.train_data == spec:
            same = not held_out.is_eval_part(opened)
        else:
            same = same_contents(known.get(name, {}), fingerprint.described())
        if same:
            found.append(name)
    return found


def _is_its_train_split(spec: str, opened: Source) -> bool:
    """Whether a source that says nothing of its contents gives the same examples for both splits."""
    whole = opened
    while isinstance(whole, SourceView):
        whole = whole.source
    train = specs.open_source(spec, "train")
    if train.num_examples != whole.num_examples:
        return False
    indices = np.unique(np.linspace(0, whole.num_examples - 1, _SAMPLE).astype(np.int64))
    ours, theirs = whole.batch(indices), train.batch(indices)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def _warn_of_reference(
    config: ExperimentConfig, name: str, shape: shapes.DataShape, said: FirstLines
) -> None:
    """A reference that was trained on what this run measures on knows the answers."""
    own = config.data_sets[name]
    if policies.get(own.policy).reference != "fixed" or shape.held_out is None or not len(shape.held_out):
        return
    theirs = reference_models.config_of(own)
    for found in recorded.group(recorded.group(theirs.get("started")).get("data")).values():
        same = same_contents(recorded.group(found.get("fingerprint")), shape.described()["fingerprint"])
        held = found.get("held_out_examples"), theirs.get("data_seed")
        if same and held != (len(shape.held_out), config.data_seed):
            said.warn(
                f"the reference, {own.reference.scores or own.reference.checkpoint}, was trained on images "
                "that this run holds out to measure on: it had another eval_share or data_seed"
            )


def _check_unchanged(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    data: Mapping[str, shapes.DataShape],
    evaluated: Mapping[str, Mapping[str, Any]],
) -> None:
    try:
        started = json.loads((workdir / "config.json").read_text()).get("started")
    except FileNotFoundError:
        return
    now = [
        *((f"data_sets.{name}", config.data_sets[name].train_data, data[name].described()) for name in data),
        *(
            (f"evaluation.evaluators.{name}", config.evaluation.evaluators[name].data, evaluated[name])
            for name in evaluated
        ),
    ]
    before = {f"data_sets.{name}": found for name, found in recorded.fingerprints(started, "data")}
    before |= {
        f"evaluation.evaluators.{name}": found for name, found in recorded.fingerprints(started, "eval_data")
    }
    for field, spec, described in now:
        changed = difference(before.get(field, {}), described["fingerprint"])
        if changed:
            raise ConfigError(
                f"{field}: {spec} is not what the run in workdir={str(workdir)!r} began with: {changed}; "
                "restore it to let the run go on, or name another workdir"
            )
    for name, shape in data.items():
        theirs = recorded.group(recorded.group(recorded.group(started).get("data")).get(name))
        changed = change(theirs, shape) if theirs else ""
        if changed:
            raise ConfigError(
                f"eval_share={config.eval_share!r}: of {config.data_sets[name].train_data} {changed} in the "
                f"run in workdir={str(workdir)!r}; with eval_share=0 a run that held out none goes on"
            )
