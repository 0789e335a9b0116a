"""A fixed reference: read from the run that trained it, and checked before anything starts."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.experiments import curves
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig, ModelConfig, require
from classact.launch.assembly.parts import (
    class_meaning,
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


def fixed_variables(data_set: DataSetConfig) -> dict[str, Any]:
    """Variables of the models that never change, by role: a fixed reference's, if it has no score files."""
    if policies.get(data_set.policy).reference != "fixed" or data_set.reference.scores:
        return {}
    directory = pathlib.Path(data_set.reference.checkpoint) / "checkpoints"
    return {"reference": checkpoints.load_model(directory, "learner")}


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
    run = pathlib.Path(data_set.reference.checkpoint)
    field = f"reference.scores={scores!r}" if scores else f"reference.checkpoint={str(run)!r}"
    theirs = reference_models.config_of(data_set)
    if policy.reference_data == "held_out":
        _check_held_out(field, theirs, config, data_set, data)
    if scores:
        return
    try:
        # The run's own ledger counts what the reference has cost.
        curves.load_run(run)
    except curves.RunError as error:
        raise ConfigError(f"{field}: {error}") from None
    task = theirs.get("task", "classification")
    if task != config.task:
        raise ConfigError(f"{field}: it was trained with task={task!r}, this run has {config.task!r}")
    found = reference_models.described(config, data_set, data).model
    if config.task == "contrastive":
        _check_same_texts(field, theirs, config)
    else:
        class_meaning.check_reference(field, run, data, said)
    try:
        variables = fixed_variables(data_set)["reference"]
    except checkpoints.CheckpointError as error:
        raise ConfigError(f"{field}: {error}") from None
    nonfinite = divergence.nonfinite_arrays(variables)
    require(not nonfinite, "reference.checkpoint", str(run), f"of a run that has not diverged: {nonfinite}")

    def with_classes(number: int) -> registry.Model:
        return networks.reference(config, data_set, dataclasses.replace(data, num_classes=number))

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


def _check_same_texts(field: str, theirs: Mapping[str, Any], config: ExperimentConfig) -> None:
    """A text is made into tokens once, for all models of a run."""
    found = theirs.get("contrastive") or {}
    for name in ("tokenizer", "context_length"):
        ours = getattr(config.contrastive, name)
        if found.get(name) != ours:
            raise ConfigError(
                f"{field}: it has {name}={found.get(name)!r}, this run {ours!r}: all models read the "
                f"same tokens: say --config.contrastive.{name}={found.get(name)}, or name another reference"
            )
