"""The part of the configuration that says where nodes run and what they have there.

It changes where and how fast a run computes, and not what.
"""

import dataclasses
import math
import re
import shlex

from classact.experiments.checks import require

# Options of sbatch that follow from the other fields, or that a run cannot have.
_OWN_SBATCH = re.compile(
    r"--(partition|nodes|ntasks|cpus-per|mem|gres|gpus|output|error|chdir|array|requeue|wrap)\b.*", re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class ThreadsConfig:
    """Compute threads of a node's process by kind, and what decodes in each; 0: one per core."""

    learner: int
    inference: int
    evaluator: int
    replay: int
    run_loop: int
    decoding: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(value >= 0, f"threads.{field.name}", value, "at least 0 (0: one per core)")


@dataclasses.dataclass(frozen=True)
class GpusConfig:
    """GPUs of a node; -1: chosen for you."""

    gpus: float = -1.0


@dataclasses.dataclass(frozen=True)
class ResourcesConfig:
    """GPUs of each node by its kind, wherever it runs; see `experiments/base.py`."""

    learner: GpusConfig = dataclasses.field(default_factory=GpusConfig)
    inference: GpusConfig = dataclasses.field(default_factory=GpusConfig)
    evaluator: GpusConfig = dataclasses.field(default_factory=GpusConfig)

    def __post_init__(self) -> None:
        for kind, gpus in self.said().items():
            shares = math.isfinite(gpus) and gpus >= 0 and (gpus < 1 or gpus == int(gpus))
            accepted = "a whole number of GPUs, a share of one such as 0.25, or -1 (chosen for you)"
            require(shares, f"resources.{kind}.gpus", gpus, accepted)

    def said(self) -> dict[str, float]:
        """GPUs of a node by its kind, of those kinds of which they are given."""
        every = {field.name: getattr(self, field.name).gpus for field in dataclasses.fields(self)}
        return {kind: gpus for kind, gpus in every.items() if gpus != -1}


@dataclasses.dataclass(frozen=True)
class NodeConfig:
    """What a node has of a cluster's host; see `experiments/base.py`."""

    cpus: int
    memory_gb: float
    gpus: float
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
    requeue: bool = False

    def __post_init__(self) -> None:
        require(self.hosts >= 0, "cluster.hosts", self.hosts, "at least 0 (0: as few as have room)")
        self._check_sbatch()
        for kind in (field.name for field in dataclasses.fields(self) if field.type is NodeConfig):
            node = getattr(self, kind)
            require(node.cpus >= 1, f"cluster.{kind}.cpus", node.cpus, "at least 1")
            shares = node.gpus >= 0 and (node.gpus < 1 or node.gpus == int(node.gpus))
            accepted = "a whole number of GPUs, or a share of one such as 0.25"
            require(shares, f"cluster.{kind}.gpus", node.gpus, accepted)
            accepted = "a finite number of at least 0 GB (0: not limited)"
            value = node.memory_gb
            require(math.isfinite(value) and value >= 0, f"cluster.{kind}.memory_gb", value, accepted)

    def _check_sbatch(self) -> None:
        accepted = "long options such as '--account=NAME --time=1:00:00', quoted as in a shell"
        try:
            options = shlex.split(self.sbatch)
        except ValueError:
            options = [""]
        plain = all(option.startswith("--") and option.isprintable() for option in options)
        require(plain, "cluster.sbatch", self.sbatch, accepted)
        own = [option for option in options if _OWN_SBATCH.fullmatch(option)]
        require(not own, "cluster.sbatch", self.sbatch, f"without {', '.join(own)}: other fields say that")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The learner's devices; see `experiments/base.py`."""

    hosts: int
    fsdp: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(value >= 1, f"mesh.{field.name}", value, "at least 1")
