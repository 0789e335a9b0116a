"""Which model a data set's reference is: the configuration's, that of its own run, or the scorer's."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from classact import user_code
from classact.experiments.config import (
    ConfigError,
    ContrastiveConfig,
    DataSetConfig,
    ExperimentConfig,
    ModelConfig,
)
from classact.experiments.model_config import MODEL_FIELDS
from classact.launch.assembly.parts import recorded, scored
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
    if fixed and (pathlib.Path(own.checkpoint) / "config.json").exists():
        return _of_run(config, data_set, data)
    stated = own.stated
    if not own.model:
        stated["options"] = {**config.scorer.options, **own.options}
        return Described(dataclasses.replace(config.scorer, **stated), config.contrastive)
    return Described(ModelConfig(**stated), config.contrastive)


def is_scorer(found: Described, config: ExperimentConfig, data: DataShape) -> bool:
    """Whether a reference is a model as the scorer is, so that what is counted of one is of the other."""

    def built_from(model: ModelConfig) -> tuple[object, ...]:
        size, patch = model.image_size or data.image_shape[0], model.patch_size or config.patch_size
        return model.model, model.text_model, dict(model.options), size, patch

    return found.contrastive == config.contrastive and built_from(found.model) == built_from(config.scorer)


def config_of(data_set: DataSetConfig) -> Mapping[str, Any]:
    """The `config.json` of the run that trained a data set's fixed reference.

    Of score files that another tool wrote it may be empty.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    run = pathlib.Path(data_set.reference.checkpoint)
    if not data_set.reference.scores:
        return read_config(run, f"reference.checkpoint={str(run)!r}")
    return scored.reference_config(data_set)


def read_config(
    run: pathlib.Path, field: str, hint: str = "train the reference first, by `classact train`"
) -> Mapping[str, Any]:
    """Reads a run's `config.json`, which names a learner.

    Args:
        run: its directory.
        field: what names it, for messages.
        hint: what to do if there is none.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    try:
        found = json.loads((run / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{field}: no run directory (no config.json): {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{field}: its config.json cannot be read: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("learner"), dict):
        raise ConfigError(f"{field}: its config.json is not a run's: it names no learner")
    return found


def learner_of(theirs: Mapping[str, Any], field: str) -> ModelConfig:
    """The learner of a run, with its own image size and patch size wherever the run says them.

    Args:
        theirs: the run's `config.json`.
        field: what names the run, for messages.

    Raises:
        ConfigError: if a value is of another type than the field's.
    """
    learner = dict(theirs["learner"])
    side = learner.get("image_size") or _side(image_shape_of(theirs))
    learner |= {"image_size": side, "patch_size": learner.get("patch_size") or theirs.get("patch_size", 0)}
    defaults = ModelConfig(model="")
    values = {}
    for name in MODEL_FIELDS:
        value, default = learner.get(name, getattr(defaults, name)), getattr(defaults, name)
        if not isinstance(value, type(default)) or (name == "model" and not value):
            raise ConfigError(f"{field}: its config.json has learner.{name}={value!r}, which is none")
        values[name] = value
    return ModelConfig(**values)


def of_parameters(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model that its parameters are for, as JSON has them; not how it is computed."""
    found: dict[str, Any] = json.loads(json.dumps(dict(options)))
    return {name: value for name, value in found.items() if name not in execution.OPTIONS}


def image_shape_of(theirs: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """The images (H, W, C) that a run was trained on; None if it does not say."""
    for found in recorded.group(recorded.group(theirs.get("started")).get("data")).values():
        shape = recorded.group(found).get("image_shape")
        if isinstance(shape, list) and len(shape) == 3 and all(isinstance(size, int) for size in shape):
            return shape[0], shape[1], shape[2]
    return None


def _side(shape: tuple[int, ...] | None) -> int:
    return shape[0] if shape is not None and shape[0] == shape[1] else 0


def _of_run(config: ExperimentConfig, data_set: DataSetConfig, data: DataShape) -> Described:
    own = data_set.reference
    field = f"reference.checkpoint={own.checkpoint!r}"
    theirs = config_of(data_set)
    found = learner_of(theirs, field)
    _check_user_code(field, found.model, config, own.model)
    for name, value in own.stated.items():
        there = getattr(found, name)
        # What it does not say shows in its parameters.
        if name != "options" and there and there != value:
            what = f"it holds a {there}" if name == "model" else f"it has {name}={there!r}"
            raise ConfigError(f"{field}: {what}, but reference.{name} is {value}: leave that out")
    shape = image_shape_of(theirs)
    if shape is not None and shape != data.image_shape:
        _check_shape(field, shape, data)
    elif not own.image_size and not theirs["learner"].get("image_size"):
        found = dataclasses.replace(found, image_size=0)
    options = of_parameters(found.options)
    if found.model == config.scorer.model or _are_vits(found, config.scorer):
        ours = config.scorer.options
        options |= {name: ours[name] for name in execution.OPTIONS if name in ours}
    stated = {**own.stated, "options": {**options, **own.options}}
    texts = recorded.group(theirs.get("contrastive"))
    # Of another type it would be damaged, and then does not fit.
    known = {
        name: texts[name]
        for name in ("embedding_size", "causal")
        if type(texts.get(name)) is type(getattr(config.contrastive, name))
    }
    return Described(dataclasses.replace(found, **stated), dataclasses.replace(config.contrastive, **known))


def _check_user_code(field: str, model: str, config: ExperimentConfig, stated: str) -> None:
    """A file that somebody else may have written must not say which code runs here."""
    if user_code.is_name(model) and model not in (config.learner.model, config.scorer.model, stated):
        raise ConfigError(
            f"{field}: it holds a {model}, but nothing here names this code: if it is to run, say "
            f"--config.reference.model={model}"
        )


def _check_shape(field: str, theirs: tuple[int, ...], data: DataShape) -> None:
    ours = data.image_shape
    if theirs[2] != ours[2] or not _side(theirs) or not _side(ours):
        why = "other channels" if theirs[2] != ours[2] else "only square ones are resized"
        raise ConfigError(
            f"{field}: it was trained on images {theirs}, those of {data.name} are {ours}: {why}"
        )


def _are_vits(*models: ModelConfig) -> bool:
    return all(model.model.startswith("vit_") for model in models)
