"""The networks of a run, made to fit its data."""

import dataclasses
import pathlib
from collections.abc import Callable

from classact import user_code
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig, ModelConfig
from classact.launch.assembly.parts import class_meaning
from classact.launch.assembly.parts.shapes import DataShape
from classact.models import cost, registry, text, transformer, two_tower
from classact.selection import policies


def make_model(model: ModelConfig, config: ExperimentConfig, data: DataShape) -> registry.Model:
    """Builds a model that fits the data set.

    Raises:
        ConfigError: for an unknown name, or sizes that do not fit.
    """
    role = "learner" if model == config.learner else "scorer"
    field = f"{role}.model={model.model!r} for {data.name} {data.image_shape}"
    with user_code.reported_as(ConfigError, field):
        return _made_model(model, config, data, role, field)


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
    try:
        image = registry.create(
            model.model,
            num_classes=own.embedding_size if paired else data.num_classes,
            image_shape=data.image_shape,
            patch_size=config.patch_size,
            **model.options,
        )
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
        bool(model.options.get("remat", False)),
    )
    if own.loss == "sigmoid":
        return two_tower.build(image, texts, two_tower.SIGMOID_SCALE, two_tower.SIGMOID_BIAS)
    return two_tower.build(image, texts)


def classifier(
    model: ModelConfig, config: ExperimentConfig, data: DataShape
) -> Callable[[int], registry.Model]:
    """What makes a model for a number of classes, and all else as the data set has it."""
    return lambda number: make_model(model, config, dataclasses.replace(data, num_classes=number))


def forward_macs(model: registry.Model, config: ExperimentConfig, data: DataShape) -> int:
    """MACs of a model's forward pass for one example."""
    length = config.contrastive.context_length if config.task == "contrastive" else 0
    return cost.forward_macs(model, data.image_shape, length)


def make_models(config: ExperimentConfig, data: DataShape) -> dict[str, registry.Model]:
    """The run's networks by name: "learner", and "online" and "reference" where a policy has them."""
    every = [policies.get(item.policy) for item in config.data_sets.values()]
    models = {"learner": make_model(config.learner, config, data)}
    if any(policy.online == "proxy" for policy in every):
        models["online"] = make_model(config.scorer, config, data)
    # Where score files stand for it there is none.
    if any(
        policy.reference is not None and not item.reference.scores
        for policy, item in zip(every, config.data_sets.values(), strict=True)
    ):
        models["reference"] = make_model(config.scorer, config, data)
    return models


def role_models(
    config: ExperimentConfig, data_set: DataSetConfig, data: DataShape
) -> dict[str, registry.Model]:
    """The networks that score a data set, by role: "online" and "reference", if not from score files.

    The logits of all are in the order of the run's classes.
    """
    policy = policies.get(data_set.policy)
    models = {}
    if policy.online is not None:
        chosen = config.learner if policy.online == "learner" else config.scorer
        models["online"] = make_model(chosen, config, data)
    if policy.reference is not None and not data_set.reference.scores:
        models["reference"] = make_model(config.scorer, config, data)
    if policy.reference == "fixed" and "reference" in models and config.task == "classification":
        run = pathlib.Path(data_set.reference.checkpoint)
        models["reference"] = class_meaning.in_order_of_run(models["reference"], run, data.classes)
    return models
