"""The resolved configuration: typed, checked, and all that the nodes are built from."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from classact.data import seeds
from classact.data.augment.recipe import NONE as NO_AUGMENTATION
from classact.data.carried.kinds import PIXELS
from classact.experiments.amortised import CurriculumConfig, TopShareConfig
from classact.experiments.checks import ConfigError as ConfigError
from classact.experiments.checks import require
from classact.experiments.machines import ClusterConfig, MeshConfig, ResourcesConfig, ThreadsConfig
from classact.experiments.model_config import LearnerConfig, OptimizerConfig
from classact.experiments.model_config import ModelConfig as ModelConfig
from classact.experiments.model_config import ReferenceConfig as ReferenceConfig
from classact.experiments.replaying import ReplayConfig
from classact.experiments.serving import ServeConfig, with_selector
from classact.selection import policies

TRAIN_SPLITS = ("all", "held_out", "rest")
TASKS = ("classification", "contrastive")
NEGATIVES = ("part", "batch")
EVALUATOR_KINDS = ("accuracy", "retrieval", "zero_shot")
# JAX counts updates in 32 bits.
_INT32 = 2**31
# What data sets and evaluators are called in labels, addresses and file names.
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """More on the scores; see `experiments/base.py`."""

    online_weight: float = 1.0
    online_weight_end: float = -1.0
    learning_rate_factor: float = 1.0
    chunks: int = 16

    def __post_init__(self) -> None:
        value = self.online_weight
        finite = math.isfinite(value) and value >= 0
        require(finite, "selection.online_weight", value, "a finite number of at least 0")
        value = self.online_weight_end
        finite = math.isfinite(value) and (value >= 0 or value == -1)
        accepted = "a finite number of at least 0, or -1 (as `online_weight`)"
        require(finite, "selection.online_weight_end", value, accepted)
        value = self.learning_rate_factor
        finite = math.isfinite(value) and value > 0
        require(finite, "selection.learning_rate_factor", value, "a finite number above 0")
        require(self.chunks >= 1, "selection.chunks", self.chunks, "at least 1")


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """Inference servers and run loops; see `experiments/base.py`."""

    servers: int
    run_loops: int
    run_loops_as_nodes: bool
    batch_size: int
    max_wait_seconds: float
    # Runs that were made before there was one had requests of a super-batch, and say none.
    request_size: int = 0

    def __post_init__(self) -> None:
        size = self.request_size
        require(size >= 0, "inference.request_size", size, "at least 0 (0: chosen for you)")
        require(self.servers >= 1, "inference.servers", self.servers, "at least 1")
        require(self.run_loops >= 0, "inference.run_loops", self.run_loops, "at least 0 (0: chosen for you)")
        require(
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
    # What runs did that were made before there was a choice.
    negatives: str = "part"
    similarity_precision: str = "default"

    def __post_init__(self) -> None:
        require(self.negatives in NEGATIVES, "contrastive.negatives", self.negatives, f"one of {NEGATIVES}")
        # A text is start, a token and end.
        accepted = "at least 3 (0: 16 with the icons' vocabulary, else 77)"
        length = self.context_length
        require(length == 0 or length >= 3, "contrastive.context_length", length, accepted)
        require(self.embedding_size >= 2, "contrastive.embedding_size", self.embedding_size, "at least 2")


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
        require(self.every >= 1, "evaluation.every", self.every, "at least 1 update")
        require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "at least 1")


@dataclasses.dataclass(frozen=True)
class DataSetConfig:
    """One data set to train on: its source, its selection, its nodes; see `experiments/base.py`."""

    policy: str
    batch_size: int
    filter_ratio: float
    temperature: float
    weight: float
    train_data: str
    label_noise: float
    caption_noise: float
    held_out: float
    train_split: str
    reference: ReferenceConfig
    replay: ReplayConfig
    inference: InferenceConfig
    selection: SelectionConfig = dataclasses.field(default_factory=SelectionConfig, kw_only=True)
    top_share: TopShareConfig = dataclasses.field(default_factory=TopShareConfig, kw_only=True)
    curriculum: CurriculumConfig = dataclasses.field(default_factory=CurriculumConfig, kw_only=True)
    augment: str = dataclasses.field(default=NO_AUGMENTATION, kw_only=True)

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        for name in ("temperature", "weight"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, name, value, "a finite number above 0")
        for name in ("filter_ratio", "held_out"):
            value = getattr(self, name)
            require(0 <= value < 1, name, value, "at least 0 and below 1")
        for name in ("label_noise", "caption_noise"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share between 0 and 1")
        require(bool(self.train_data), "train_data", self.train_data, "the name of a source")
        require(self.train_split in TRAIN_SPLITS, "train_split", self.train_split, f"one of {TRAIN_SPLITS}")
        if self.train_split != "all":
            require(
                self.held_out > 0, "held_out", self.held_out, f"above 0 with train_split={self.train_split!r}"
            )

    @property
    def super_batch_size(self) -> int:
        """B, examples read (and scored) per update."""
        return round(self.batch_size / (1.0 - self.filter_ratio))

    @property
    def drawn_size(self) -> int:
        """Examples that the learner takes out of the replay per update: b; B, if it chooses of them."""
        return self.super_batch_size if policies.get(self.policy).joint else self.batch_size

    @property
    def has_servers(self) -> bool:
        """Whether inference servers score: a model does that is not replaced by its score files."""
        policy = policies.get(self.policy)
        return policy.online is not None or (policy.reference is not None and not self.reference.scores)

    @property
    def has_replay(self) -> bool:
        """Whether examples come by way of a replay; a recorded order is read by the learner itself."""
        return policies.get(self.policy).prepared != "order"

    @property
    def carried(self) -> str:
        """What the replay carries of an image; without one its pixels are read."""
        return self.replay.images if self.has_replay else PIXELS


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(DataSetConfig):
    """Everything that defines a run. The fields are those of `experiments/base.py`.

    Built by `resolution.resolve`, which also fills in what defaults leave open; then every
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
    learner: LearnerConfig
    scorer: ModelConfig
    mesh: MeshConfig
    gradient_accumulation: int
    contrastive: ContrastiveConfig
    evaluation: EvaluationConfig
    log_every: int
    checkpoint_every: int
    record_examples: bool
    no_data_seconds: float
    threads: ThreadsConfig
    cluster: ClusterConfig
    resources: ResourcesConfig = dataclasses.field(default_factory=ResourcesConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    restarts_per_hour: int = 10
    stop_notice_seconds: float = 8.0
    hung_seconds: float = 120.0
    # Runs that were made before there was one held nothing out.
    eval_share: float = 0.0
    serve: ServeConfig = dataclasses.field(default_factory=ServeConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.steps < _INT32, "steps", self.steps, "at least 1 and below 2^31")
        for name in ("seed", "data_seed"):
            value = getattr(self, name)
            require(0 <= value < seeds.LIMIT, name, value, seeds.ACCEPTED)
        for name in ("patch_size", "log_every", "gradient_accumulation"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.restarts_per_hour >= 0, "restarts_per_hour", self.restarts_per_hour, "at least 0")
        every = self.checkpoint_every
        # With each checkpoint the learner draws the batches of its next updates: two, if it reads one ahead.
        ahead = max((own.replay.read_ahead for own in self.data_sets.values()), default=1)
        accepted = f"0 (only at the end) or at least {ahead + 2}" + (
            f" with replay.read_ahead={ahead}" if ahead > 1 else ""
        )
        require(every == 0 or every >= ahead + 2, "checkpoint_every", every, accepted)
        for name in ("learning_rate", "no_data_seconds", "stop_notice_seconds"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, name, value, "a finite number above 0")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, name, value, "a finite number of at least 0")
        value = self.hung_seconds
        # A node says once a second that it is there.
        accepted = "0 (never), or a finite number of at least 5"
        require(value == 0 or (math.isfinite(value) and value >= 5), "hung_seconds", value, accepted)
        value = self.label_smoothing
        require(0 <= value < 1, "label_smoothing", value, "at least 0 and below 1")
        value = self.eval_share
        require(0 <= value < 1, "eval_share", value, "at least 0 (0: nothing is held out) and below 1")
        value = self.max_nonfinite_share
        require(0 <= value <= 1, "max_nonfinite_share", value, "a share between 0 and 1")
        accepted = f"below steps={self.steps}, and at least -1 (-1: a tenth of them)"
        require(-1 <= self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, accepted)
        require(self.task in TASKS, "task", self.task, f"one of {TASKS}")
        for role in ("learner", "scorer"):
            getattr(self, role).check(role)
        self.learner.check_training(self.task)
        self._check_evaluators()
        self._check_gpus()

    def _check_evaluators(self) -> None:
        for name, evaluator in self.evaluation.evaluators.items():
            field = f"evaluation.evaluators.{name}"
            require(bool(NAME.fullmatch(name)), field, name, "named by a-z, 0-9 and _")
            accepted = ("accuracy",) if self.task == "classification" else EVALUATOR_KINDS[1:]
            require(
                evaluator.kind in accepted,
                f"{field}.kind",
                evaluator.kind,
                f"one of {accepted} with task={self.task!r}",
            )

    def _check_gpus(self) -> None:
        for kind, gpus in self.resources.said().items():
            theirs = getattr(self.cluster, kind).gpus
            same = f"0 or that of resources.{kind}.gpus={gpus:g}, which says it for every launch"
            require(theirs in (0, gpus), f"cluster.{kind}.gpus", theirs, same)
        own = self.resources.learner.gpus
        # NCCL, through which hosts exchange gradients, refuses two of them on one device.
        shared = self.mesh.hosts > 1 and 0 < own < 1
        require(not shared, "resources.learner.gpus", own, f"whole with mesh.hosts={self.mesh.hosts}")

    @property
    def in_two_passes(self) -> bool:
        """Whether each update computes embeddings twice, so that all parts of a batch are negatives."""
        own = self.contrastive.negatives
        return self.task == "contrastive" and self.gradient_accumulation > 1 and own == "batch"

    @property
    def scored(self) -> tuple[str, ...]:
        """The data sets whose examples are scored."""
        return tuple(name for name, own in self.data_sets.items() if policies.get(own.policy).scores)

    def policy_of(self, data_set: DataSetConfig) -> policies.Policy:
        """The policy of one of the run's data sets; a selector is its own online model."""
        found = policies.get(data_set.policy)
        return with_selector(found) if self.serve.on else found

    @property
    def on_cluster(self) -> ClusterConfig:
        """What nodes have of a cluster's hosts, with the GPUs that `resources` says."""
        said = self.resources.said()
        changed = {
            kind: dataclasses.replace(getattr(self.cluster, kind), gpus=gpus) for kind, gpus in said.items()
        }
        return dataclasses.replace(self.cluster, **changed)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as nested plain dicts, for `config.json`."""
        return dataclasses.asdict(self)
