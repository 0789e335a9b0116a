"""What the `config.json` of another run says of its models; of a checkpoint of another tool likewise."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.data import tokenizer as tokenizer_lib
from classact.experiments.config import ConfigError, ContrastiveConfig, ModelConfig
from classact.experiments.model_config import MODEL_FIELDS
from classact.models import execution
from classact.weights import as_run, opening
from classact.weights.errors import WeightsError

# Options of a head, which is another one where a model gets other outputs.
HEAD = ("head", "head_bias")
# The name of a model that is what its `init` is of.
INIT = "init"


def read_config(
    run: str, field: str, hint: str = "train the reference first, by `classact train`"
) -> Mapping[str, Any]:
    """Reads a run's `config.json`, which names a learner, or tells a checkpoint of another tool like one.

    Args:
        run: its directory, or the checkpoint's spec, see `weights.opening`.
        field: what names it, for messages.
        hint: what to do if there is none.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    if opening.is_outside(run):
        try:
            return as_run.fields(run)
        except WeightsError as error:
            raise ConfigError(f"{field}: {error}") from None
    try:
        found = json.loads((pathlib.Path(run) / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{field}: no run directory (no config.json): {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{field}: its config.json cannot be read: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("learner"), dict):
        raise ConfigError(f"{field}: its config.json is not a run's: it names no learner")
    return found


def is_there(run: str) -> bool:
    """Whether what is named is a checkpoint of another tool, or a run that says what it is."""
    return opening.is_outside(run) or (pathlib.Path(run) / "config.json").exists()


def learner_of(theirs: Mapping[str, Any], field: str) -> ModelConfig:
    """The learner of a run, with its own image size and patch size wherever the run says them.

    Args:
        theirs: the run's `config.json`.
        field: what names the run, for messages.

    Raises:
        ConfigError: if a value is of another type than the field's.
    """
    learner = dict(theirs["learner"])
    side = learner.get("image_size") or side_of(image_shape_of(theirs))
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
    for found in _group(_group(theirs.get("started")).get("data")).values():
        shape = _group(found).get("image_shape")
        if isinstance(shape, list) and len(shape) == 3 and all(isinstance(size, int) for size in shape):
            return shape[0], shape[1], shape[2]
    return None


def side_of(shape: tuple[int, ...] | None) -> int:
    """The side of square images; 0 for others, and for those of which nothing is known."""
    return shape[0] if shape is not None and shape[0] == shape[1] else 0


def texts_of(theirs: Mapping[str, Any], ours: ContrastiveConfig, field: str) -> ContrastiveConfig:
    """How a run's models read texts, and the space that they map into; what it does not say is ours.

    Args:
        theirs: the run's `config.json`.
        ours: of this run.
        field: what names the run, for messages.

    Raises:
        ConfigError: for a tokenizer that is code of a user's and not this run's, or that nobody knows.
    """
    texts = _group(theirs.get("contrastive"))
    # A classification reads none.
    read = ("tokenizer", "context_length") if theirs.get("task") == "contrastive" else ()
    # Of another type it would be damaged, and then does not fit.
    known = {
        name: texts[name]
        for name in ("embedding_size", "causal", *read)
        if type(texts.get(name)) is type(getattr(ours, name))
    }
    tokenizer = known.get("tokenizer", ours.tokenizer)
    if not tokenizer:
        raise ConfigError(f"{field}: it does not say its tokenizer: name it, by ?tokenizer=SPEC at the end")
    if tokenizer_lib.is_users(tokenizer) and tokenizer != ours.tokenizer:
        raise ConfigError(
            f"{field}: its tokenizer is {tokenizer}, but nothing here names this code: if it is to run, say "
            f"--config.contrastive.tokenizer={tokenizer}"
        )
    return dataclasses.replace(ours, **known)


def _group(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
