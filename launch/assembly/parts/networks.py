"""The networks of a run, made to fit its data."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import cast

from classact import user_code
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig, ModelConfig, require
from classact.experiments.model_config import INTERPOLATIONS
from classact.launch.assembly.parts import class_meaning, reference_models
from classact.launch.assembly.parts.shapes import DataShape
from classact.models import cost, execution, inputs, registry, text, transformer, two_tower


def make_model(
    model: ModelConfig, config: ExperimentConfig, data: DataShape, role: str = "learner"
) -> registry.Model:
    """Builds a model that takes the images of a data set, at whatever size it looks at them itself.

    Args:
        model: which.
        config: of the run.
        data: the data set.
        role: the group of its fields, for messages: "learner", "scorer" or "reference".

    Raises:
        ConfigError: for an unknown name, or sizes that do not fit.
    """
    field = f"{role}.model={model.model!r} for {data.name} {data.image_shape}"
    with user_code.reported_as(ConfigError, field):
        return _made_model(model, config, data, role, field)


def image_shape(model: ModelConfig, data: DataShape, role: str) -> tuple[int, int, int]:
    """(H, W, C) in pixels of what a model looks at: the data set's images, resized if it says a size.

    Raises:
        ConfigError: if images that are not square would have to be resized.
    """
    height, width, channels = data.image_shape
    size = model.image_size
    accepted = f"0 with images of {height}×{width} pixels, as {data.name} has: only square ones are resized"
    require(not size or height == width, f"{role}.image_size", size, accepted)
    return (size or height, size or width, channels)


def _input(shape: tuple[int, int, int], model: ModelConfig) -> inputs.Input:
    # One of these, which the configuration has checked.
    return inputs.Input(shape, cast(inputs.Interpolation, model.interpolation or INTERPOLATIONS[0]))


def _made_model(
    model: ModelConfig, config: ExperimentConfig, data: DataShape, role: str, field: str
) -> registry.Model:
    paired = config.task == "contrastive"
    own = config.contrastive
    twice = sorted({"name", "num_classes", "image_shape", "patch_size"} & set(model.options))
    if twice:
        raise ConfigError(
            f"{role}.options: {twice[0]!r} is none, it follows from the other fields and the data"
        )
    shape = image_shape(model, data, role)
    try:
        image = registry.create(
            model.model,
            num_classes=own.embedding_size if paired else data.num_classes,
            image_shape=shape,
            patch_size=model.patch_size or config.patch_size,
            **model.options,
        )
        image = inputs.fitted(image, data.image_shape, _input(shape, model))
        if not paired:
            return image
        field = f"{role}.text_model={model.text_model!r}"
        size = text.size(model.text_model)
    # The latter for options of another type, or that are no options.
    except (ValueError, TypeError) as error:
        if user_code.blamed(error) is not None:
            raise
        raise ConfigError(f"{field}: {error}") from None
    texts = text.TextTransformer(
        size,
        data.vocab_size,
        own.context_length,
        data.end_id,
        own.embedding_size,
        own.causal,
        # The image tower has accepted them.
        transformer.DTYPES[model.options.get("dtype", "float32")],
        execution.of_options(model.options),
    )
    if own.loss == "sigmoid":
        return two_tower.build(image, texts, two_tower.SIGMOID_SCALE, two_tower.SIGMOID_BIAS)
    return two_tower.build(image, texts)


def learner(config: ExperimentConfig, data: DataShape) -> registry.Model:
    """The model that is trained; ConfigError as `make_model`."""
    return make_model(config.learner, config, data, "learner")


def scorer(config: ExperimentConfig, data: DataShape) -> registry.Model:
    """The online model that is no learner; ConfigError as `make_model`."""
    return make_model(config.scorer, config, data, "scorer")


def reference(config: ExperimentConfig, data_set: DataSetConfig, data: DataShape) -> registry.Model:
    """The reference of a data set, with its logits in its own order; ConfigError as `make_model`."""
    found = reference_models.described(config, data_set, data)
    own = dataclasses.replace(config, contrastive=found.contrastive)
    stated = data_set.reference.checkpoint or data_set.reference.model
    return make_model(found.model, own, data, "reference" if stated else "scorer")


def by_outputs(
    model: ModelConfig, config: ExperimentConfig, data: DataShape, role: str
) -> tuple[Callable[[int], registry.Model], int]:
    """What makes a model for a number of outputs, classes or channels of the common space; and its own."""
    paired = config.task == "contrastive"

    def made(outputs: int) -> registry.Model:
        space = dataclasses.replace(config.contrastive, embedding_size=outputs)
        chosen = dataclasses.replace(config, contrastive=space)
        return make_model(model, chosen, dataclasses.replace(data, num_classes=outputs), role)

    return made, config.contrastive.embedding_size if paired else data.num_classes


def classifier(config: ExperimentConfig, data: DataShape) -> Callable[[int], registry.Model]:
    """What makes the learner for a number of classes, and all else as the data set has it."""
    return lambda number: learner(config, dataclasses.replace(data, num_classes=number))


def forward_macs(model: registry.Model, config: ExperimentConfig, data: DataShape) -> int:
    """MACs of a model's forward pass for one example."""
    length = config.contrastive.context_length if config.task == "contrastive" else 0
    return cost.forward_macs(model, data.image_shape, length)


def make_models(config: ExperimentConfig, data: DataShape) -> dict[str, registry.Model]:
    """The networks that a run trains: "learner", and "online" and "reference" where a policy trains one."""
    models = {"learner": learner(config, data)}
    every = [(config.policy_of(item), item) for item in config.data_sets.values()]
    if any(policy.online == "proxy" for policy, _ in every):
        models["online"] = scorer(config, data)
    # Of several data sets they all have the same.
    trains = next((item for policy, item in every if policy.reference == "trained"), None)
    if trains is not None:
        models["reference"] = reference(config, trains, data)
    return models


def role_models(
    config: ExperimentConfig, data_set: DataSetConfig, data: DataShape, in_order: bool = True
) -> dict[str, registry.Model]:
    """The networks that score a data set, by role: "online" and "reference", if not from score files.

    Args:
        config: of the run.
        data_set: that is scored.
        data: its shape.
        in_order: whether the logits of all are in the order of the run's classes, for which a fixed
            reference must be there.
    """
    policy = config.policy_of(data_set)
    models = {}
    if policy.online is not None:
        models["online"] = learner(config, data) if policy.online == "learner" else scorer(config, data)
    if policy.reference is not None and not data_set.reference.scores:
        models["reference"] = reference(config, data_set, data)
    if in_order and policy.reference == "fixed" and "reference" in models and config.task == "classification":
        run = pathlib.Path(data_set.reference.checkpoint)
        models["reference"] = class_meaning.in_order_of_run(models["reference"], run, data.classes)
    return models
