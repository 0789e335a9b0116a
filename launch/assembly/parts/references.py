"""A fixed reference: read from the run that trained it, and checked before anything starts."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.experiments import curves
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig, ModelConfig, require
from classact.launch.assembly.parts import (
    class_meaning,
    class_names_head,
    fitting,
    networks,
    recorded,
    reference_models,
    scored,
    shapes,
)
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.models import registry
from classact.nodes import checkpoints, divergence
from classact.selection import policies
from classact.weights import opening
from classact.weights.errors import WeightsError


def fixed_variables(
    config: ExperimentConfig, data_set: DataSetConfig, data: shapes.DataShape
) -> dict[str, Any]:
    """Variables of the models that never change, by role: a fixed reference's, if it has no score files.

    Of one that reads its logits from class names their texts go through its text tower here, which takes
    seconds to minutes.

    Args:
        config: of the run.
        data_set: whose reference.
        data: the data set, with the classes of the run.

    Raises:
        CheckpointError, WeightsError: if they cannot be read.
        source.DataError: if the classes have no names.
    """
    if policies.get(data_set.policy).reference != "fixed" or data_set.reference.scores:
        return {}
    found = _stored(data_set.reference.checkpoint)
    if data_set.reference.head:
        found = class_names_head.variables(config, data_set, data, found)
    return {"reference": found}


def _stored(checkpoint: str) -> Mapping[str, Any]:
    """A model's variables as they are stored: of a run's learner, or of a checkpoint of another tool."""
    if opening.is_outside(checkpoint):
        return opening.read(checkpoint).variables
    return checkpoints.load_model(pathlib.Path(checkpoint) / "checkpoints", "learner")


def check_reference(
    config: ExperimentConfig, data_set: DataSetConfig, data: shapes.DataShape, said: FirstLines | None = None
) -> None:
    """Checks that a data set's reference is what this run would score with.

    Args:
        config: of the run.
        data_set: whose reference.
        data: the data set, with the classes of the run.
        said: is told what cannot be checked; None: nobody is.

    Raises:
        ConfigError: if it is missing or damaged, or of another architecture,
            classes, or data than the policy asks for.
    """
    policy = policies.get(data_set.policy)
    scored.check(config, data_set, data)
    if policy.reference != "fixed":
        return
    scores = data_set.reference.scores
    run = data_set.reference.checkpoint
    field = f"reference.scores={scores!r}" if scores else f"reference.checkpoint={run!r}"
    theirs = reference_models.config_of(data_set)
    if policy.reference_data == "held_out":
        _check_held_out(field, theirs, config, data_set, data)
    if scores:
        return
    try:
        # The run's own ledger counts what the reference has cost.
        if not opening.is_outside(run):
            curves.load_run(run)
    except curves.RunError as error:
        raise ConfigError(f"{field}: {error}") from None
    _check_task(field, theirs, config, data_set)
    found = reference_models.described(config, data_set, data).model
    if data_set.reference.head:
        class_names_head.check(config, data_set, data, said)
    elif config.task == "classification":
        _check_head(field, theirs)
        class_meaning.check_reference(field, run, data, said)
    try:
        variables = _stored(run)
    except (checkpoints.CheckpointError, WeightsError) as error:
        raise ConfigError(f"{field}: {error}") from None
    nonfinite = divergence.nonfinite_arrays(variables)
    require(not nonfinite, "reference.checkpoint", run, f"of a run that has not diverged: {nonfinite}")

    def with_classes(number: int) -> registry.Model:
        shape = dataclasses.replace(data, num_classes=number)
        made = networks.reference_towers if data_set.reference.head else networks.reference
        return made(config, data_set, shape)

    difference = fitting.misfit(variables, with_classes, data.num_classes)
    if difference:
        shape = networks.image_shape(found, data, "reference")
        raise ConfigError(
            f"{field}: it does not fit {found.model} with {data.num_classes} classes, "
            f"images {shape} and patch_size={found.patch_size or config.patch_size}: {difference}"
        )
    _say_what_differs(found, config, said)


def _say_what_differs(found: ModelConfig, config: ExperimentConfig, said: FirstLines | None) -> None:
    """One line where a reference is no model like the scorer."""
    ours, patch = config.scorer, config.patch_size
    differs = (found.model, found.image_size, found.patch_size or patch) != (
        ours.model, ours.image_size, ours.patch_size or patch
    )  # fmt: skip
    if differs and said is not None:
        size = f" at {found.image_size}×{found.image_size}" if found.image_size else ""
        said.say(f"the reference is a {found.model}{size} with patches of {found.patch_size or patch}")


def _check_held_out(
    field: str,
    theirs: Mapping[str, Any],
    config: ExperimentConfig,
    data_set: DataSetConfig,
    data: shapes.DataShape,
) -> None:
    """It has learned from the part of the data that was set aside for it."""
    ours = (data_set.train_data, data_set.held_out, config.data_seed, "held_out")
    found = tuple(theirs.get(name) for name in ("train_data", "held_out", "data_seed", "train_split"))
    started = theirs.get("started")
    found = (recorded.moved_to(started, found[0], ours[0], data.described()["fingerprint"]), *found[1:])
    if found != ours:
        raise ConfigError(
            f"{field}: policy {data_set.policy!r} needs a reference trained with "
            f"(train_data, held_out, data_seed, train_split) = {ours}, this one had {found}"
        )
    aside, theirs_aside = data.described()["held_out_examples"], recorded.held_out_examples(started)
    if aside != theirs_aside:
        raise ConfigError(
            f"{field}: {theirs_aside:,} examples were held out to measure on when it was trained, this "
            f"run holds out {aside:,}, so the parts overlap: eval_data and eval_share must be as there"
        )


def _check_task(
    field: str, theirs: Mapping[str, Any], config: ExperimentConfig, data_set: DataSetConfig
) -> None:
    """It has what the run scores by: the same task, or texts for the names of the classes."""
    task, head = theirs.get("task", "classification"), data_set.reference.head
    if head:
        require(config.task == "classification", "reference.head", head, f"empty with task={config.task!r}")
        require(task == "contrastive", "reference.head", head, f"empty: {field} has no text tower")
    elif task != config.task:
        hint = ", or reference.head=zero_shot" if config.task == "classification" else ""
        raise ConfigError(f"{field}: it was trained with task={task!r}, this run has {config.task!r}{hint}")


def _check_head(field: str, theirs: Mapping[str, Any]) -> None:
    """It has outputs; of another tool's checkpoint the features alone may be there."""
    if not recorded.group(theirs["learner"].get("options")).get("head", True):
        raise ConfigError(
            f"{field}: it has no head, features alone: `classact probe` makes a reference of them"
        )
