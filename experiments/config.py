"""The resolved configuration: typed, checked, and all that the nodes are built from."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from classact.selection import policies

TRAIN_SPLITS = ("all", "held_out", "rest")


class ConfigError(ValueError):
    """A field has a value that cannot be run; the message says what can."""


def _require(condition: bool, field: str, value: Any, accepted: str) -> None:
    if not condition:
        raise ConfigError(f"{field}={value!r}: must be {accepted}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model by its name in the registry, with options of its family."""

    model: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ReferenceConfig:
    """The reference model; see `experiments/base.py` for the fields."""

    checkpoint: str
    super_batch: int
    learning_rate_factor: float

    def __post_init__(self) -> None:
        _require(self.super_batch >= 0, "reference.super_batch", self.super_batch, "at least 0 (0: 10 · b)")
        _require(
            math.isfinite(self.learning_rate_factor) and self.learning_rate_factor > 0,
            "reference.learning_rate_factor",
            self.learning_rate_factor,
            "a finite number above 0",
        )


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """The replay; see `experiments/base.py`."""

    capacity: int


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """Inference servers and run loops; see `experiments/base.py`."""

    servers: int
    run_loops: int
    run_loops_as_nodes: bool
    batch_size: int
    max_wait_seconds: float

    def __post_init__(self) -> None:
        _require(self.servers >= 1, "inference.servers", self.servers, "at least 1")
        _require(self.run_loops >= 0, "inference.run_loops", self.run_loops, "at least 0 (0: chosen for you)")
        _require(
            math.isfinite(self.max_wait_seconds) and self.max_wait_seconds >= 0,
            "inference.max_wait_seconds",
            self.max_wait_seconds,
            "a finite number of at least 0 seconds",
        )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The evaluator in the program; see `experiments/base.py`."""

    every: int
    batch_size: int

    def __post_init__(self) -> None:
        _require(self.every >= 1, "evaluation.every", self.every, "at least 1 update")
        _require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "at least 1")


@dataclasses.dataclass(frozen=True)
class ThreadsConfig:
    """Compute threads of a node's process by kind; 0: one per core."""

    learner: int
    inference: int
    evaluator: int
    replay: int
    run_loop: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(value >= 0, f"threads.{field.name}", value, "at least 0 (0: one per core)")


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that defines a run. The fields are those of `experiments/base.py`.

    Built by `resolve`, which also fills in what defaults leave open; then every
    number is final, and `config.json` holds exactly this.
    """

    policy: str
    batch_size: int
    filter_ratio: float
    temperature: float
    score_shift: float
    max_nonfinite_share: float
    train_data: str
    eval_data: str
    label_noise: float
    held_out: float
    train_split: str
    data_seed: int
    steps: int
    seed: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    label_smoothing: float
    patch_size: int
    learner: ModelConfig
    scorer: ModelConfig
    reference: ReferenceConfig
    replay: ReplayConfig
    inference: InferenceConfig
    evaluation: EvaluationConfig
    log_every: int
    checkpoint_every: int
    no_data_seconds: float
    threads: ThreadsConfig

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "patch_size", "log_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "data_seed", "checkpoint_every"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("temperature", "learning_rate", "no_data_seconds"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "a finite number above 0")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, value, "a finite number of at least 0")
        for name in ("filter_ratio", "held_out", "label_smoothing"):
            value = getattr(self, name)
            _require(0 <= value < 1, name, value, "at least 0 and below 1")
        for name in ("label_noise", "max_nonfinite_share"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share between 0 and 1")
        _require(math.isfinite(self.score_shift), "score_shift", self.score_shift, "a finite number")
        _require(
            self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, f"below steps={self.steps}"
        )
        _require(bool(self.train_data), "train_data", self.train_data, "the name of a source")
        self._check_split()
        self._check_reference()

    def _check_split(self) -> None:
        _require(self.train_split in TRAIN_SPLITS, "train_split", self.train_split, f"one of {TRAIN_SPLITS}")
        if self.train_split != "all":
            _require(
                self.held_out > 0, "held_out", self.held_out, f"above 0 with train_split={self.train_split!r}"
            )

    def _check_reference(self) -> None:
        try:
            policy = policies.get(self.policy)
        except ValueError as error:
            raise ConfigError(f"policy={self.policy!r}: {error}") from None
        if policy.reference == "fixed":
            _require(
                bool(self.reference.checkpoint),
                "reference.checkpoint",
                self.reference.checkpoint,
                f"the run directory of a pretrained reference: policy {self.policy!r} scores with one",
            )
            if policy.reference_data == "held_out":
                _require(
                    self.train_split == "rest",
                    "train_split",
                    self.train_split,
                    f"'rest' with policy {self.policy!r}: its reference learned from the held-out part",
                )
        elif self.reference.checkpoint:
            raise ConfigError(
                f"reference.checkpoint={self.reference.checkpoint!r}: "
                f"policy {self.policy!r} uses no fixed reference"
            )

    @property
    def super_batch_size(self) -> int:
        """B, examples read (and scored) per update."""
        return round(self.batch_size / (1.0 - self.filter_ratio))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as nested plain dicts, for `config.json`."""
        return dataclasses.asdict(self)


def resolve(fields: Mapping[str, Any]) -> ExperimentConfig:
    """Builds the configuration from nested dicts, and fills in what is left open.

    Args:
        fields: every field of `experiments/base.py`.

    Raises:
        ConfigError: for a missing or unknown field or a value that cannot be run.
    """
    config: ExperimentConfig = _build(ExperimentConfig, fields, "")
    policy = policies.get(config.policy)
    if not policy.scores:
        # Nothing to filter by: every example that is read is trained on.
        config = dataclasses.replace(config, filter_ratio=0.0)
    examples = config.super_batch_size
    warmup = config.warmup_steps if config.warmup_steps >= 0 else config.steps // 10
    capacity = config.replay.capacity or 8 * examples
    # While one thread beside a server writes, the other's batch is scored.
    as_nodes = config.inference.run_loops_as_nodes or not policy.scores
    run_loops = config.inference.run_loops or (1 if as_nodes else 2)
    server_batch = config.inference.batch_size or examples
    super_batch = 0
    if policy.reference == "trained":
        # Whole reads of the stream make up a super-batch.
        wanted = config.reference.super_batch or 10 * config.batch_size
        super_batch = math.ceil(wanted / examples) * examples
    _require(
        capacity >= 2 * examples, "replay.capacity", capacity, f"at least two super-batches, {2 * examples}"
    )
    _require(
        server_batch >= examples,
        "inference.batch_size",
        server_batch,
        f"at least one super-batch, {examples} (0: just that)",
    )
    return dataclasses.replace(
        config,
        warmup_steps=warmup,
        replay=dataclasses.replace(config.replay, capacity=capacity),
        inference=dataclasses.replace(
            config.inference, batch_size=server_batch, run_loops=run_loops, run_loops_as_nodes=as_nodes
        ),
        reference=dataclasses.replace(config.reference, super_batch=super_batch),
    )


def _build(kind: type, fields: Mapping[str, Any], prefix: str) -> Any:
    """Builds a dataclass from a dict, and the dataclasses in it."""
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')}={fields!r}: must be a group of fields")
    hints = get_type_hints(kind)
    missing = sorted(set(hints) - set(fields))
    unknown = sorted(set(fields) - set(hints))
    if missing or unknown:
        raise ConfigError(
            "; ".join(
                [f"missing field {prefix}{name}" for name in missing]
                + [f"unknown field {prefix}{name}" for name in unknown]
            )
        )
    values = {}
    for name, hint in hints.items():
        value = fields[name]
        if dataclasses.is_dataclass(hint):
            value = _build(hint, value, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif hint in (int, float, str, bool):
            value = _scalar(hint, value, prefix + name)
        elif isinstance(value, Mapping):
            value = dict(value)
        else:
            raise ConfigError(f"{prefix}{name}={value!r}: must be a group of fields")
        values[name] = value
    return kind(**values)


def _scalar(hint: type, value: Any, field: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{field}={value!r}: must be of type {hint.__name__}")
    return value
