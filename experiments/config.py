"""The resolved configuration: typed, checked, and all that the nodes are built from."""

import dataclasses
import math
import re
import shlex
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from classact.selection import policies

TRAIN_SPLITS = ("all", "held_out", "rest")
TASKS = ("classification", "contrastive")
EVALUATOR_KINDS = ("accuracy", "retrieval", "zero_shot")
# What a data set is called in labels, addresses and file names.
_CAPACITY = 4  # Of a replay table by default, in super-batches.
# Options of sbatch that follow from the other fields, or that a run cannot have.
_OWN_SBATCH = re.compile(
    r"--(partition|nodes|ntasks|cpus-per|mem|gres|gpus|output|error|chdir|array|requeue|wrap)\b.*", re.DOTALL
)
_DATA_SET_NAME = re.compile(r"[a-z][a-z0-9_]*")


class ConfigError(ValueError):
    """A field has a value that cannot be run; the message says what can."""


def _require(condition: bool, field: str, value: Any, accepted: str) -> None:
    if not condition:
        raise ConfigError(f"{field}={value!r}: must be {accepted}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model by its name in the registry, its text tower, and options of its family."""

    model: str
    text_model: str = ""
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
    shards: int = 1

    def __post_init__(self) -> None:
        _require(self.shards >= 1, "replay.shards", self.shards, "at least 1")


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
class ContrastiveConfig:
    """The contrastive task and its texts; see `experiments/base.py`."""

    loss: str
    act_loss: str
    tokenizer: str
    context_length: int
    embedding_size: int
    causal: bool
    templates: str

    def __post_init__(self) -> None:
        for name in ("context_length", "embedding_size"):
            _require(getattr(self, name) >= 2, f"contrastive.{name}", getattr(self, name), "at least 2")


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig:
    """One evaluator node.

    Attributes:
        kind: one of `EVALUATOR_KINDS`.
        data: the source to measure on, its eval split.
        templates: prompts of `zero_shot`, see `data.prompts`.
        distinct: whether `retrieval` leaves out pairs with a caption that came
            before: texts that are equal cannot be told apart.
    """

    kind: str
    data: str
    templates: str = "simple"
    distinct: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The evaluators in the program; see `experiments/base.py`."""

    every: int
    batch_size: int
    evaluators: Mapping[str, EvaluatorConfig]

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
class NodeConfig:
    """What a node has of a cluster's host; see `experiments/base.py`."""

    cpus: int
    memory_gb: float
    gpus: int
    partition: str


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """How the nodes are placed on a cluster, by kind; see `experiments/base.py`."""

    hosts: int
    sbatch: str
    learner: NodeConfig
    inference: NodeConfig
    evaluator: NodeConfig
    replay: NodeConfig
    run_loop: NodeConfig

    def __post_init__(self) -> None:
        _require(self.hosts >= 0, "cluster.hosts", self.hosts, "at least 0 (0: as few as have room)")
        self._check_sbatch()
        for kind in (field.name for field in dataclasses.fields(self) if field.type is NodeConfig):
            node = getattr(self, kind)
            _require(node.cpus >= 1, f"cluster.{kind}.cpus", node.cpus, "at least 1")
            _require(node.gpus >= 0, f"cluster.{kind}.gpus", node.gpus, "at least 0")
            accepted = "a finite number of at least 0 GB (0: not limited)"
            value = node.memory_gb
            _require(math.isfinite(value) and value >= 0, f"cluster.{kind}.memory_gb", value, accepted)

    def _check_sbatch(self) -> None:
        accepted = "long options such as '--account=NAME --time=1:00:00', quoted as in a shell"
        try:
            options = shlex.split(self.sbatch)
        except ValueError:
            options = [""]
        plain = all(option.startswith("--") and option.isprintable() for option in options)
        _require(plain, "cluster.sbatch", self.sbatch, accepted)
        own = [option for option in options if _OWN_SBATCH.fullmatch(option)]
        _require(not own, "cluster.sbatch", self.sbatch, f"without {', '.join(own)}: other fields say that")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The learner's devices; see `experiments/base.py`."""

    hosts: int
    fsdp: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(value >= 1, f"mesh.{field.name}", value, "at least 1")


@dataclasses.dataclass(frozen=True)
class DataSetConfig:
    """One data set to train on: its source, its selection, its nodes; see `experiments/base.py`."""

    policy: str
    batch_size: int
    filter_ratio: float
    temperature: float
    score_shift: float
    weight: float
    train_data: str
    label_noise: float
    caption_noise: float
    held_out: float
    train_split: str
    reference: ReferenceConfig
    replay: ReplayConfig
    inference: InferenceConfig

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        for name in ("temperature", "weight"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "a finite number above 0")
        for name in ("filter_ratio", "held_out"):
            value = getattr(self, name)
            _require(0 <= value < 1, name, value, "at least 0 and below 1")
        for name in ("label_noise", "caption_noise"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share between 0 and 1")
        _require(math.isfinite(self.score_shift), "score_shift", self.score_shift, "a finite number")
        _require(bool(self.train_data), "train_data", self.train_data, "the name of a source")
        _require(self.train_split in TRAIN_SPLITS, "train_split", self.train_split, f"one of {TRAIN_SPLITS}")
        if self.train_split != "all":
            _require(
                self.held_out > 0, "held_out", self.held_out, f"above 0 with train_split={self.train_split!r}"
            )

    @property
    def super_batch_size(self) -> int:
        """B, examples read (and scored) per update."""
        return round(self.batch_size / (1.0 - self.filter_ratio))


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(DataSetConfig):
    """Everything that defines a run. The fields are those of `experiments/base.py`.

    Built by `resolve`, which also fills in what defaults leave open; then every
    number is final, and `config.json` holds exactly this. The data sets trained on
    are `data_sets`, one at least; the run's own fields of a data set are those of
    the only one, and of several a summary: names joined by "+", sums.
    """

    data_sets: Mapping[str, DataSetConfig]
    task: str
    max_nonfinite_share: float
    eval_data: str
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
    mesh: MeshConfig
    gradient_accumulation: int
    contrastive: ContrastiveConfig
    evaluation: EvaluationConfig
    log_every: int
    checkpoint_every: int
    no_data_seconds: float
    threads: ThreadsConfig
    cluster: ClusterConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "patch_size", "log_every", "gradient_accumulation"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "data_seed", "checkpoint_every"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("learning_rate", "no_data_seconds"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "a finite number above 0")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, value, "a finite number of at least 0")
        value = self.label_smoothing
        _require(0 <= value < 1, "label_smoothing", value, "at least 0 and below 1")
        value = self.max_nonfinite_share
        _require(0 <= value <= 1, "max_nonfinite_share", value, "a share between 0 and 1")
        _require(
            self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, f"below steps={self.steps}"
        )
        _require(self.task in TASKS, "task", self.task, f"one of {TASKS}")
        self._check_evaluators()

    def _check_evaluators(self) -> None:
        for name, evaluator in self.evaluation.evaluators.items():
            field = f"evaluation.evaluators.{name}"
            _require(bool(_DATA_SET_NAME.fullmatch(name)), field, name, "named by a-z, 0-9 and _")
            accepted = ("accuracy",) if self.task == "classification" else EVALUATOR_KINDS[1:]
            _require(
                evaluator.kind in accepted,
                f"{field}.kind",
                evaluator.kind,
                f"one of {accepted} with task={self.task!r}",
            )

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
    if config.data_sets:
        data_sets = {}
        for name, data_set in sorted(config.data_sets.items()):
            _require(bool(_DATA_SET_NAME.fullmatch(name)), "data_sets", name, "named by a-z, 0-9 and _")
            try:
                data_sets[name] = _resolve_data_set(data_set)
            except ConfigError as error:
                raise ConfigError(f"data_sets.{name}.{error}") from None
        summary = _summary(data_sets)
    else:
        only = _resolve_data_set(_part(config))
        data_sets = {_source_name(only.train_data): only}
        summary = {field.name: getattr(only, field.name) for field in dataclasses.fields(DataSetConfig)}
    for name, data_set in data_sets.items():
        _check_shares(config, f"data_sets.{name}." if config.data_sets else "", data_set)
    return dataclasses.replace(
        config,
        **summary,
        data_sets=data_sets,
        warmup_steps=config.warmup_steps if config.warmup_steps >= 0 else config.steps // 10,
        learner=_with_text_model("learner", config.learner, config.task),
        scorer=_with_text_model("scorer", config.scorer, config.task),
        evaluation=_with_evaluators(config, data_sets),
    )


def _check_shares(config: ExperimentConfig, prefix: str, data_set: DataSetConfig) -> None:
    """Each host reads an equal share of every batch, and trains on it in equal parts."""
    hosts, parts = config.mesh.hosts, config.gradient_accumulation
    batches = {"batch_size": data_set.batch_size}
    if data_set.reference.super_batch:
        batches["reference.super_batch"] = data_set.reference.super_batch
        # The stream is read in whole super-batches of what is scored.
        _require(
            data_set.super_batch_size % hosts == 0,
            f"{prefix}batch_size / (1 - filter_ratio)",
            data_set.super_batch_size,
            f"divisible by mesh.hosts={hosts}",
        )
    for name, size in batches.items():
        _require(
            size % (hosts * parts) == 0,
            f"{prefix}{name}",
            size,
            f"divisible by mesh.hosts={hosts} times gradient_accumulation={parts}",
        )
    shards = data_set.replay.shards
    read = {"batch_size": data_set.batch_size}
    if data_set.reference.super_batch:
        read["batch_size / (1 - filter_ratio)"] = data_set.super_batch_size
    for name, size in read.items():
        accepted = f"divisible by mesh.hosts={hosts} times replay.shards={shards}: each host reads of each"
        _require(size % (hosts * shards) == 0, f"{prefix}{name}", size, accepted)


def _part(config: ExperimentConfig) -> DataSetConfig:
    """The run's own fields of a data set."""
    return DataSetConfig(**{f.name: getattr(config, f.name) for f in dataclasses.fields(DataSetConfig)})


def _source_name(spec: str) -> str:
    """The name of a source, without its path and options."""
    return spec.split(":")[0].split("?")[0]


def _summary(data_sets: Mapping[str, DataSetConfig]) -> dict[str, Any]:
    """What the run's own fields say of several data sets."""
    every = list(data_sets.values())
    batch_size = sum(item.batch_size for item in every)
    return {
        "policy": "+".join(dict.fromkeys(item.policy for item in every)),
        "train_data": "+".join(item.train_data for item in every),
        "batch_size": batch_size,
        "filter_ratio": 1.0 - batch_size / sum(item.super_batch_size for item in every),
    }


def _resolve_data_set(config: DataSetConfig) -> DataSetConfig:
    policy = _checked_policy(config)
    if not policy.scores:
        # Nothing to filter by: every example that is read is trained on.
        config = dataclasses.replace(config, filter_ratio=0.0)
    examples = config.super_batch_size
    shards = config.replay.shards
    # What a super-batch takes: each shard's part of it, rounded up.
    room = shards * math.ceil(examples / shards)
    capacity = config.replay.capacity or _CAPACITY * room
    # While one thread beside a server writes, the other's batch is scored.
    as_nodes = config.inference.run_loops_as_nodes or not policy.scores
    run_loops = config.inference.run_loops or (1 if as_nodes else 2)
    server_batch = config.inference.batch_size or examples
    super_batch = 0
    if policy.reference == "trained":
        # Whole reads of the stream make up a super-batch.
        wanted = config.reference.super_batch or 10 * config.batch_size
        super_batch = math.ceil(wanted / examples) * examples
    _require(capacity >= 2 * room, "replay.capacity", capacity, f"at least two super-batches, {2 * room}")
    _check_shards(config, capacity, config.inference.servers * run_loops, bool(super_batch))
    _require(
        server_batch >= examples,
        "inference.batch_size",
        server_batch,
        f"at least one super-batch, {examples} (0: just that)",
    )
    return dataclasses.replace(
        config,
        replay=dataclasses.replace(config.replay, capacity=capacity),
        inference=dataclasses.replace(
            config.inference, batch_size=server_batch, run_loops=run_loops, run_loops_as_nodes=as_nodes
        ),
        reference=dataclasses.replace(config.reference, super_batch=super_batch),
    )


def _check_shards(config: DataSetConfig, capacity: int, run_loops: int, streamed: bool) -> None:
    """Checks that every shard gets its part of all that is written and read."""
    shards, examples = config.replay.shards, config.super_batch_size
    if shards == 1:
        return
    _require(
        shards <= run_loops,
        "replay.shards",
        shards,
        f"at most {run_loops}, as many as there are run loops (inference.servers · inference.run_loops): "
        "each writes to one shard",
    )
    _require(
        config.batch_size % shards == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of replay.shards={shards}: a batch has equally many examples of each",
    )
    _require(
        capacity % shards == 0,
        "replay.capacity",
        capacity,
        f"a multiple of replay.shards={shards}: it is that of all shards together",
    )
    _require(
        not streamed or examples % shards == 0,
        "replay.shards",
        shards,
        f"a divisor of the {examples} examples that are read per update, batch_size / (1 − filter_ratio): "
        f"policy {config.policy!r} takes equally many of each shard's stream",
    )


def _checked_policy(config: DataSetConfig) -> policies.Policy:
    """The policy, with the reference that it asks for."""
    try:
        policy = policies.get(config.policy)
    except ValueError as error:
        raise ConfigError(f"policy={config.policy!r}: {error}") from None
    checkpoint = config.reference.checkpoint
    if policy.reference != "fixed":
        if checkpoint:
            raise ConfigError(
                f"reference.checkpoint={checkpoint!r}: policy {config.policy!r} uses no fixed reference"
            )
        return policy
    _require(
        bool(checkpoint),
        "reference.checkpoint",
        checkpoint,
        f"the run directory of a pretrained reference: policy {config.policy!r} scores with one",
    )
    if policy.reference_data == "held_out":
        _require(
            config.train_split == "rest",
            "train_split",
            config.train_split,
            f"'rest' with policy {config.policy!r}: its reference learned from the held-out part",
        )
    return policy


def _with_text_model(field: str, model: ModelConfig, task: str) -> ModelConfig:
    if task == "classification":
        _require(not model.text_model, f"{field}.text_model", model.text_model, "empty with this task")
    elif not model.text_model:
        _require(
            model.model.startswith("vit_"),
            f"{field}.text_model",
            model.text_model,
            f"the name of a text tower, such as 'text_mu_6_1': {model.model} is no ViT to take its size from",
        )
        return dataclasses.replace(model, text_model=model.model.replace("vit_", "text_", 1))
    return model


def _with_evaluators(config: ExperimentConfig, data_sets: Mapping[str, DataSetConfig]) -> EvaluationConfig:
    first = next(iter(data_sets.values())).train_data
    evaluators = dict(config.evaluation.evaluators)
    if not evaluators:
        name, kind = ("test", "accuracy") if config.task == "classification" else ("retrieval", "retrieval")
        evaluators[name] = EvaluatorConfig(kind, config.eval_data)
    evaluators = {
        name: dataclasses.replace(item, data=item.data or config.eval_data or first)
        for name, item in evaluators.items()
    }
    return dataclasses.replace(config.evaluation, evaluators=evaluators)


def _build(kind: type, fields: Mapping[str, Any], prefix: str) -> Any:
    """Builds a dataclass from a dict, and the dataclasses in it."""
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')}={fields!r}: must be a group of fields")
    hints = get_type_hints(kind)
    optional = {f.name for f in dataclasses.fields(kind) if _has_default(f)}
    missing = sorted(set(hints) - set(fields) - optional)
    unknown = sorted(set(fields) - set(hints))
    if missing or unknown:
        raise ConfigError(
            "; ".join(
                [f"missing field {prefix}{name}" for name in missing]
                + [f"unknown field {prefix}{name}" for name in unknown]
            )
        )
    return kind(**{name: _value(hints[name], value, prefix + name) for name, value in fields.items()})


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _value(hint: Any, value: Any, field: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{field}.")  # type: ignore[arg-type]
    if hint in (int, float, str, bool):
        return _scalar(hint, value, field)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{field}={value!r}: must be a group of fields")
    item = get_args(hint)[1]
    if dataclasses.is_dataclass(item):
        return {name: _build(item, entry, f"{field}.{name}.") for name, entry in value.items()}  # type: ignore[arg-type]
    return dict(value)


def _scalar(hint: type, value: Any, field: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{field}={value!r}: must be of type {hint.__name__}")
    return value
