"""A fixed reference: read from the run that trained it, and checked before anything starts."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.experiments import curves
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig, require
from classact.launch.assembly.parts import class_meaning, fitting, networks, recorded, scored, shapes
from classact.launch.assembly.parts.first_lines import FirstLines
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
    theirs = config_of(data_set)
    if policy.reference_data == "held_out":
        _check_held_out(field, theirs, config, data_set, data)
    if scores:
        return
    try:
        # The run's own ledger counts what the reference has cost.
        curves.load_run(run)
    except curves.RunError as error:
        raise ConfigError(f"{field}: {error}") from None
    model = theirs["learner"].get("model")
    if model != config.scorer.model:
        raise ConfigError(f"{field}: it holds a {model}, but scorer.model is {config.scorer.model}")
    task = theirs.get("task", "classification")
    if task != config.task:
        raise ConfigError(f"{field}: it was trained with task={task!r}, this run has {config.task!r}")
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
    difference = fitting.misfit(variables, networks.classifier(config.scorer, config, data), data.num_classes)
    if difference:
        raise ConfigError(
            f"{field}: it does not fit {config.scorer.model} with {data.num_classes} classes, "
            f"images {data.image_shape} and patch_size={config.patch_size}: {difference}"
        )


def config_of(data_set: DataSetConfig) -> Mapping[str, Any]:
    """The `config.json` of the run that trained a data set's fixed reference.

    Of score files that another tool wrote it may be empty.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    run = pathlib.Path(data_set.reference.checkpoint)
    if not data_set.reference.scores:
        return _read_config(run, f"reference.checkpoint={str(run)!r}")
    return scored.reference_config(data_set)


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
    """Equal shapes do not show that two text towers read the same tokens in the same way."""
    found = {**(theirs.get("contrastive") or {}), "text_model": theirs["learner"].get("text_model")}
    ours = {**dataclasses.asdict(config.contrastive), "text_model": config.scorer.text_model}
    for name in ("text_model", "tokenizer", "context_length", "causal"):
        if found.get(name) != ours[name]:
            group = "scorer" if name == "text_model" else "contrastive"
            raise ConfigError(
                f"{field}: it has {name}={found.get(name)!r}, this run {ours[name]!r}: say "
                f"--config.{group}.{name}={found.get(name)}, or name a reference that was trained as this run"
            )


def _read_config(run: pathlib.Path, field: str) -> Mapping[str, Any]:
    try:
        found = json.loads((run / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{field}: no run directory (no config.json): train the reference first, by `classact train`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{field}: its config.json cannot be read: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("learner"), dict):
        raise ConfigError(f"{field}: its config.json is not a run's: it names no learner")
    return found
