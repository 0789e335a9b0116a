"""From a configuration to the parts of which the nodes are built."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from classact.data import noise, source, specs, stream
from classact.experiments.config import ConfigError, ExperimentConfig, ModelConfig
from classact.models import registry
from classact.nodes import checkpoints, training
from classact.replay import records
from classact.selection import losses, policies


@dataclasses.dataclass(frozen=True)
class DataShape:
    """What models and tables must know of a data set, without its examples.

    Attributes:
        name: of the source.
        num_classes: K.
        image_shape: (H, W, C) in pixels.
        codec: packs its batches into records.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    codec: records.RecordCodec


def data_shape(data: source.Source) -> DataShape:
    """Reads one example to learn the shape."""
    example = next(stream.IIDStream(data, batch_size=1, seed=0))
    return DataShape(data.name, data.num_classes, data.image_shape, records.RecordCodec(example))


def open_train_source(config: ExperimentConfig) -> source.Source:
    """Opens the training data, split and with its labels redrawn as configured.

    Raises:
        source.DataError: if it cannot be opened; names the file and the reason.
    """
    opened = specs.open_source(config.train_data, "train")
    if config.train_split != "all":
        rest, held_out = source.held_out_split(opened, config.held_out, config.data_seed)
        opened = held_out if config.train_split == "held_out" else rest
    if config.label_noise > 0:
        opened = noise.with_label_noise(opened, config.label_noise, config.data_seed)
    return opened


def open_eval_source(config: ExperimentConfig) -> source.Source:
    """Opens the data to measure on: `eval_data`, or the eval split of `train_data`.

    Raises:
        source.DataError: if it cannot be opened.
    """
    return specs.open_source(config.eval_data or config.train_data, "eval")


def make_task(config: ExperimentConfig) -> losses.Task:
    """Builds the task: its losses."""
    return losses.Classification(config.label_smoothing)


def make_model(model: ModelConfig, config: ExperimentConfig, data: DataShape) -> registry.Model:
    """Builds a model that fits the data set.

    Raises:
        ConfigError: for an unknown name, or sizes that do not fit.
    """
    try:
        return registry.create(
            model.model,
            num_classes=data.num_classes,
            image_shape=data.image_shape,
            patch_size=config.patch_size,
            **model.options,
        )
    except ValueError as error:
        raise ConfigError(f"model {model.model!r} for {data.name} {data.image_shape}: {error}") from None


def make_models(config: ExperimentConfig, data: DataShape) -> dict[str, registry.Model]:
    """The policy's networks by name: "learner", and "online" and "reference" where it has them."""
    policy = policies.get(config.policy)
    models = {"learner": make_model(config.learner, config, data)}
    if policy.online == "proxy":
        models["online"] = make_model(config.scorer, config, data)
    if policy.reference is not None:
        models["reference"] = make_model(config.scorer, config, data)
    return models


def role_models(config: ExperimentConfig, data: DataShape) -> dict[str, registry.Model]:
    """The networks that score, by role: "online" and "reference"."""
    policy = policies.get(config.policy)
    models = make_models(config, data)
    if policy.online == "learner":
        models["online"] = models["learner"]
    return {role: models[role] for role in ("online", "reference") if role in models}


def trained_models(config: ExperimentConfig, data: DataShape) -> dict[str, training.TrainedModel]:
    """The models that the learner trains, with their optimisers."""
    policy = policies.get(config.policy)
    models = make_models(config, data)
    trained = {}
    for name in policy.trained_models:
        on_super_batch = name == "reference"
        factor = config.reference.learning_rate_factor if on_super_batch else 1.0
        optimizer = training.OptimizerConfig(
            learning_rate=factor * config.learning_rate,
            steps=config.steps,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
        trained[name] = training.TrainedModel(models[name], optimizer, on_super_batch)
    return trained


def fixed_variables(config: ExperimentConfig) -> dict[str, Any]:
    """Variables of the models that never change, by role: a fixed reference's."""
    if policies.get(config.policy).reference != "fixed":
        return {}
    directory = pathlib.Path(config.reference.checkpoint) / "checkpoints"
    return {"reference": checkpoints.load_model(directory, "learner")}


def check_reference(config: ExperimentConfig, data: DataShape) -> None:
    """Checks that the reference's checkpoint is what this run would score with.

    Raises:
        ConfigError: if it is missing or damaged, or of another architecture,
            number of classes, or data than the policy asks for.
    """
    policy = policies.get(config.policy)
    if policy.reference != "fixed":
        return
    run = pathlib.Path(config.reference.checkpoint)
    field = f"reference.checkpoint={str(run)!r}"
    theirs = _read_config(run, field)
    model = theirs["learner"].get("model")
    if model != config.scorer.model:
        raise ConfigError(f"{field}: it holds a {model}, but scorer.model is {config.scorer.model}")
    if policy.reference_data == "held_out":
        ours = (config.train_data, config.held_out, config.data_seed, "held_out")
        found = tuple(theirs.get(name) for name in ("train_data", "held_out", "data_seed", "train_split"))
        if found != ours:
            raise ConfigError(
                f"{field}: policy {policy.name!r} needs a reference trained with "
                f"(train_data, held_out, data_seed, train_split) = {ours}, this one had {found}"
            )
    try:
        variables = fixed_variables(config)["reference"]
    except checkpoints.CheckpointError as error:
        raise ConfigError(f"{field}: {error}") from None
    expected = jax.eval_shape(make_model(config.scorer, config, data).init, jax.random.key(0))
    difference = _first_difference(variables["params"], expected["params"])
    if difference:
        raise ConfigError(
            f"{field}: it does not fit {config.scorer.model} with {data.num_classes} classes, "
            f"images {data.image_shape} and patch_size={config.patch_size}: {difference}"
        )


def _read_config(run: pathlib.Path, field: str) -> Mapping[str, Any]:
    try:
        found = json.loads((run / "config.json").read_text())
    except FileNotFoundError:
        raise ConfigError(f"{field}: no run directory (it has no config.json)") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field}: its config.json cannot be read: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("learner"), dict):
        raise ConfigError(f"{field}: its config.json is not a run's: it names no learner")
    return found


def _first_difference(found: Any, expected: Any) -> str:
    """Names the first parameter of which presence or shape differ."""

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}

    theirs, ours = shapes(found), shapes(expected)
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            return f"{name} has shape {theirs.get(name, 'none')}, expected {ours.get(name, 'none')}"
    return ""
