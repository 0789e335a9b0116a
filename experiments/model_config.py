"""The models of a run as its configuration has them: typed and checked."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from classact.experiments.checks import require

# Those of `models.inputs`, which needs JAX: a configuration is read where nothing is computed too.
INTERPOLATIONS = ("bilinear", "bicubic")
# What says what a model is; a reference has them too.
MODEL_FIELDS = ("model", "text_model", "options", "image_size", "patch_size", "interpolation")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model by its name in the registry, its text tower, options of its family, and its input.

    The fields are those of `experiments/model_fields.py`. Runs that were made before there was an
    image size, and what follows it, had what the defaults here say.
    """

    model: str
    text_model: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int = 0
    patch_size: int = 0
    interpolation: str = ""
    init: str = ""

    def check(self, role: str) -> None:
        """Checks the numbers.

        Raises:
            ConfigError: naming the field of the group `role`.
        """
        _check_input(role, self)


@dataclasses.dataclass(frozen=True)
class ReferenceConfig:
    """The reference model; see `experiments/model_fields.py` for the fields."""

    checkpoint: str
    super_batch: int
    learning_rate_factor: float
    # Runs that were made before there was one read it from the checkpoint's own run.
    pretraining_macs: float = -1.0
    scores: str = ""
    model: str = ""
    text_model: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int = 0
    patch_size: int = 0
    interpolation: str = ""

    def __post_init__(self) -> None:
        require(self.super_batch >= 0, "reference.super_batch", self.super_batch, "at least 0 (0: 10 · b)")
        require(
            math.isfinite(self.learning_rate_factor) and self.learning_rate_factor > 0,
            "reference.learning_rate_factor",
            self.learning_rate_factor,
            "a finite number above 0",
        )
        cost = self.pretraining_macs
        accepted = "-1 (what its own run has cost), 0 (taken off the shelf) or a finite number of MACs"
        known = math.isfinite(cost) and (cost >= 0 or cost == -1)
        require(known, "reference.pretraining_macs", cost, accepted)
        _check_input("reference", self)
        for name, value in self.stated.items():
            require(
                not self.scores, f"reference.{name}", value, "empty with reference.scores: no model scores"
            )

    @property
    def stated(self) -> dict[str, Any]:
        """What the configuration says of its model, by field; empty: nothing."""
        return {name: getattr(self, name) for name in MODEL_FIELDS if getattr(self, name)}


def _check_input(role: str, model: ModelConfig | ReferenceConfig) -> None:
    value = model.image_size
    require(value >= 0, f"{role}.image_size", value, "a side in pixels (0: that of the data)")
    value = model.patch_size
    require(value >= 0, f"{role}.patch_size", value, "a side in pixels (0: the run's patch_size)")
    accepted = f"one of {INTERPOLATIONS} (empty: {INTERPOLATIONS[0]})"
    known = model.interpolation in ("", *INTERPOLATIONS)
    require(known, f"{role}.interpolation", model.interpolation, accepted)
