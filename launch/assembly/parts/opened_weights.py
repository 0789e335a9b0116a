"""Weights that a configuration names, with what they are of: a run directory's newest checkpoint."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.data.classes import Classes
from classact.experiments import run_config
from classact.experiments.config import ConfigError, ModelConfig, require
from classact.launch.assembly.parts import class_meaning, recorded
from classact.nodes import checkpoints, divergence
from classact.weights import opening
from classact.weights.errors import WeightsError


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
        outside: the spec, of a checkpoint of another tool.
    """

    model: ModelConfig
    task: str
    image_shape: tuple[int, int, int] | None
    classes: Classes | None
    texts: Mapping[str, Any]
    variables: Mapping[str, Any]
    outside: str = ""

    @property
    def is_headless(self) -> bool:
        """Whether it has features alone."""
        return not self.model.options.get("head", True)


def open_weights(field: str, spec: str) -> Opened:
    """Reads weights.

    Every spec that a configuration names for weights to start from comes here.

    Args:
        field: what names them, with the spec, for messages.
        spec: a run directory, whose learner's weights of its newest checkpoint are read; or a checkpoint
            of another tool, see `weights.opening`.

    Raises:
        ConfigError: if there are none, or they are damaged or not finite.
    """
    others = ", ".join(f"{tool}:PATH" for tool in opening.TOOLS)
    hint = f"weights to start from are those of a run, or {others}"
    theirs = run_config.read_config(spec, field, hint)
    model = run_config.learner_of(theirs, field)
    try:
        if opening.is_outside(spec):
            variables = opening.read(spec).variables
        else:
            variables = checkpoints.load_model(pathlib.Path(spec) / "checkpoints", "learner")
    except (checkpoints.CheckpointError, WeightsError) as error:
        raise ConfigError(f"{field}: {error}") from None
    nonfinite = divergence.nonfinite_arrays(variables)
    require(not nonfinite, field.partition("=")[0], spec, f"of a run that has not diverged: {nonfinite}")
    shape = run_config.image_shape_of(theirs)
    if shape is not None and theirs["learner"].get("image_size"):
        shape = (model.image_size, model.image_size, shape[2])
    return Opened(
        model,
        str(theirs.get("task", "classification")),
        shape,
        class_meaning.recorded(spec),
        recorded.group(theirs.get("contrastive")),
        variables,
        spec if opening.is_outside(spec) else "",
    )
