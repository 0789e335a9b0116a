"""Which model a data set's reference is: the configuration's, that of its own run, or the scorer's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from classact import user_code
from classact.experiments import run_config
from classact.experiments.config import (
    ConfigError,
    ContrastiveConfig,
    DataSetConfig,
    ExperimentConfig,
    ModelConfig,
)
from classact.launch.assembly.parts import scored
from classact.launch.assembly.parts.shapes import DataShape
from classact.models import execution
from classact.selection import policies


@dataclasses.dataclass(frozen=True)
class Described:
    """What a model is built from beside the data.

    Attributes:
        model: its fields; an image size or a patch size of 0 are those of the data and of this run.
        contrastive: of its texts and of the space that it maps into.
    """

    model: ModelConfig
    contrastive: ContrastiveConfig


def described(config: ExperimentConfig, data_set: DataSetConfig, data: DataShape) -> Described:
    """The model of a data set's reference.

    A fixed reference is what its own run says, and what this configuration says of it must agree.
    Without such a run, as of one that is trained in this run or is planned, it is
    `reference.model`, or the scorer's.

    Args:
        config: of this run.
        data_set: whose reference.
        data: the data set.

    Raises:
        ConfigError: if the reference's run cannot be read, or is another than this configuration says.
    """
    own = data_set.reference
    fixed = policies.get(data_set.policy).reference == "fixed" and own.checkpoint and not own.scores
    if fixed and run_config.is_there(own.checkpoint):
        return _of_run(config, data_set, data)
    stated = own.stated
    if not own.model:
        stated["options"] = {**config.scorer.options, **own.options}
        stated["text_options"] = {**config.scorer.text_options, **own.text_options}
        return Described(dataclasses.replace(config.scorer, **stated), config.contrastive)
    return Described(ModelConfig(**stated), config.contrastive)


def is_scorer(found: Described, config: ExperimentConfig, data: DataShape) -> bool:
    """Whether a reference is a model as the scorer is, so that what is counted of one is of the other."""

    def built_from(model: ModelConfig) -> tuple[object, ...]:
        size, patch = model.image_size or data.image_shape[0], model.patch_size or config.patch_size
        options = dict(model.options), dict(model.text_options)
        return model.model, model.text_model, options, size, patch

    return found.contrastive == config.contrastive and built_from(found.model) == built_from(config.scorer)


def config_of(data_set: DataSetConfig) -> Mapping[str, Any]:
    """The `config.json` of the run that trained a data set's fixed reference.

    Of score files that another tool wrote it may be empty.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    run = data_set.reference.checkpoint
    if not data_set.reference.scores:
        return run_config.read_config(run, f"reference.checkpoint={run!r}")
    return scored.reference_config(data_set)


def _of_run(config: ExperimentConfig, data_set: DataSetConfig, data: DataShape) -> Described:
    own = data_set.reference
    field = f"reference.checkpoint={own.checkpoint!r}"
    theirs = config_of(data_set)
    found = run_config.learner_of(theirs, field)
    _check_user_code(field, found.model, config, own.model)
    for name, value in own.stated.items():
        there = getattr(found, name)
        # What it does not say shows in its parameters.
        if not name.endswith("options") and there and there != value:
            what = f"it holds a {there}" if name == "model" else f"it has {name}={there!r}"
            raise ConfigError(f"{field}: {what}, but reference.{name} is {value}: leave that out")
    shape = run_config.image_shape_of(theirs)
    if shape is not None and shape != data.image_shape:
        _check_shape(field, shape, data, bool(found.options.get("mean")))
    elif not own.image_size and not theirs["learner"].get("image_size"):
        found = dataclasses.replace(found, image_size=0)
    options = run_config.of_parameters(found.options)
    if found.model == config.scorer.model or _are_vits(found, config.scorer):
        ours = config.scorer.options
        options |= {name: ours[name] for name in execution.OPTIONS if name in ours}
    stated = {
        **own.stated,
        "options": {**options, **own.options},
        "text_options": {**found.text_options, **own.text_options},
    }
    texts = run_config.texts_of(theirs, config.contrastive, field)
    return Described(dataclasses.replace(found, **stated), texts)


def _check_user_code(field: str, model: str, config: ExperimentConfig, stated: str) -> None:
    """A file that somebody else may have written must not say which code runs here."""
    if user_code.is_name(model) and model not in (config.learner.model, config.scorer.model, stated):
        raise ConfigError(
            f"{field}: it holds a {model}, but nothing here names this code: if it is to run, say "
            f"--config.reference.model={model}"
        )


def _check_shape(field: str, theirs: tuple[int, ...], data: DataShape, normalised: bool) -> None:
    """`normalised`: whether it has a mean for each channel, and so sees a grey image in each of them."""
    ours = data.image_shape
    other = theirs[2] != ours[2] and not (normalised and ours[2] == 1)
    if other or not run_config.side_of(theirs) or not run_config.side_of(ours):
        why = "other channels" if other else "only square ones are resized"
        raise ConfigError(
            f"{field}: it was trained on images {theirs}, those of {data.name} are {ours}: {why}"
        )


def _are_vits(*models: ModelConfig) -> bool:
    return all(model.model == "vit" or model.model.startswith("vit_") for model in models)
