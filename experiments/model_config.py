"""The models of a run as its configuration has them: typed and checked."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from classact.experiments.checks import require

# Those of `models.inputs`, which needs JAX: a configuration is read where nothing is computed too.
INTERPOLATIONS = ("bilinear", "bicubic")
# Those of `nodes.optimizers`, likewise.
OPTIMIZERS = ("adamw", "lion", "adafactor", "sgd")
SCHEDULES = ("cosine", "rsqrt", "constant")
DECAYED = ("matrices", "kernels")
FREEZES = ("", "image", "text", "all_but_head")
# What says what a model is; a reference has them too.
MODEL_FIELDS = ("model", "text_model", "options", "text_options", "image_size", "patch_size", "interpolation")
# Those of a reference: its own, or class names as texts tell them.
HEADS = ("", "zero_shot")


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
    text_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(self, role: str) -> None:
        """Checks the numbers.

        Raises:
            ConfigError: naming the field of the group `role`.
        """
        _check_input(role, self)


@dataclasses.dataclass(frozen=True)
class LearnerConfig(ModelConfig):
    """The model that is trained, and which of its parameters are, how fast."""

    freeze: str = ""
    layer_decay: float = 1.0

    def check_training(self, task: str) -> None:
        """Checks what is frozen.

        Raises:
            ConfigError: naming the field.
        """
        accepted = FREEZES if task == "contrastive" else ("", "all_but_head")
        known = self.freeze in accepted
        require(known, "learner.freeze", self.freeze, f"one of {accepted} with task={task!r}")
        started = bool(self.init or not self.freeze)
        require(
            started,
            "learner.freeze",
            self.freeze,
            "empty without learner.init: what is frozen would be random",
        )
        value = self.layer_decay
        require(0 < value <= 1, "learner.layer_decay", value, "above 0 and at most 1 (1: none)")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How all models of a run are trained; see `experiments/model_fields.py`."""

    name: str = "adamw"
    schedule: str = "cosine"
    cooldown_steps: int = 0
    beta1: float = 0.9
    beta2: float = -1.0
    epsilon: float = 1e-8
    decayed: str = "matrices"
    decay_times_rate: bool = True

    def __post_init__(self) -> None:
        for name, accepted in (("name", OPTIMIZERS), ("schedule", SCHEDULES), ("decayed", DECAYED)):
            value = getattr(self, name)
            require(value in accepted, f"optimizer.{name}", value, f"one of {accepted}")
        require(0 <= self.beta1 < 1, "optimizer.beta1", self.beta1, "at least 0 and below 1")
        known = self.beta2 == -1 or 0 <= self.beta2 < 1
        require(known, "optimizer.beta2", self.beta2, "at least 0 and below 1 (-1: the optimiser's usual)")
        finite = math.isfinite(self.epsilon) and self.epsilon > 0
        require(finite, "optimizer.epsilon", self.epsilon, "a finite number above 0")

    def resolved(self, steps: int, warmup_steps: int) -> "OptimizerConfig":
        """With what the optimiser's own paper has, where it is left open.

        Raises:
            ConfigError: if the cooldown does not fit into the run.
        """
        value, most = self.cooldown_steps, 0 if self.schedule == "cosine" else steps - warmup_steps
        accepted = f"at least 0 and at most {most}: a cosine ends at 0 anyway" if not most else f"0 to {most}"
        require(0 <= value <= most, "optimizer.cooldown_steps", value, accepted)
        usual = 0.99 if self.name == "lion" else 0.999
        return dataclasses.replace(self, beta2=usual if self.beta2 < 0 else self.beta2)


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
    text_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head: str = ""

    def __post_init__(self) -> None:
        require(self.head in HEADS, "reference.head", self.head, f"one of {HEADS}")
        given = bool(self.checkpoint) or not self.head
        require(given, "reference.head", self.head, "empty without reference.checkpoint, which has the texts")
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
