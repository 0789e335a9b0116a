"""Weights that a configuration names, with what they are of: a run directory's newest checkpoint."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.data.classes import Classes
from classact.experiments.config import ConfigError, ModelConfig, require
from classact.launch.assembly.parts import class_meaning, recorded, reference_models
from classact.nodes import checkpoints, divergence


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model's weights.

    Attributes:
        model: what they are of.
        task: that it was trained for, "classification" or "contrastive".
        image_shape: (H, W, C) in pixels that it looks at; None if that is not known.
        classes: what its logits mean; None if that is not known, or they are none.
        texts: of a contrastive task what says how texts are read, by field of `contrastive`.
        variables: `{"params", "state"}` of numpy arrays.
    """

    model: ModelConfig
    task: str
    image_shape: tuple[int, int, int] | None
    classes: Classes | None
    texts: Mapping[str, Any]
    variables: Mapping[str, Any]


def open_weights(field: str, spec: str) -> Opened:
    """Reads weights.

    Every spec that a configuration names for weights to start from comes here.

    Args:
        field: what names them, with the spec, for messages.
        spec: a run directory; the learner's weights of its newest checkpoint are read.

    Raises:
        ConfigError: if there are none, or they are damaged or not finite.
    """
    run = pathlib.Path(spec)
    theirs = reference_models.read_config(run, field, "weights to start from are those of a run")
    model = reference_models.learner_of(theirs, field)
    try:
        variables = checkpoints.load_model(run / "checkpoints", "learner")
    except checkpoints.CheckpointError as error:
        raise ConfigError(f"{field}: {error}") from None
    nonfinite = divergence.nonfinite_arrays(variables)
    require(not nonfinite, field.partition("=")[0], spec, f"of a run that has not diverged: {nonfinite}")
    shape = reference_models.image_shape_of(theirs)
    if shape is not None and theirs["learner"].get("image_size"):
        shape = (model.image_size, model.image_size, shape[2])
    return Opened(
        model,
        str(theirs.get("task", "classification")),
        shape,
        class_meaning.recorded(run),
        recorded.group(theirs.get("contrastive")),
        variables,
    )
