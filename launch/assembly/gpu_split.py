"""How a machine's GPUs are divided between the learner and the servers that score.

Both work on the same stream, the learner on b examples of an update and the servers on the
B = b / (1 − filter_ratio) that these are chosen from, so they should take equally long: the GPUs
are divided as the work is. It is counted in multiply-accumulates (`experiments/ledger.py`), which takes
all models to run equally well. Small ones do not; `benchmarks/accelerator.py` measures how well.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

from classact.experiments import ledger
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly.parts import learning, networks, shapes

# Where learner and scorers share one GPU: the learner has optimiser and activations to hold.
LEARNERS_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class Work:
    """What an update takes, in any unit of time or work that both have in common.

    Attributes:
        training: of the learner's node: its update of every model that is trained.
        scoring: of all inference servers together.
    """

    training: float
    scoring: float


def work_of(config: ExperimentConfig, data: shapes.DataShape) -> Work:
    """MACs of an update of a run."""
    models = networks.make_models(config, data)
    macs = {name: float(networks.forward_macs(model, config, data)) for name, model in models.items()}
    learner, online = macs["learner"], macs.get("online", 0.0)
    training = scoring = 0.0
    for own in config.data_sets.values():
        policy = config.policy_of(own)
        trained = learner * own.batch_size
        trained += online * own.batch_size if policy.online == "proxy" else 0.0
        reference = 0.0
        if policy.reference is not None and not own.reference.scores:
            model = networks.reference(config, own, data)
            reference = float(networks.forward_macs(model, config, data))
        trained += reference * own.reference.super_batch if policy.reference == "trained" else 0.0
        training += ledger.TRAINING_PASSES * trained
        if policy.scores:
            acting = ledger.acting_cost(policy, learner, reference, bool(own.reference.scores), online)
            scoring += acting * own.super_batch_size
    return Work(training, scoring)


def learners_gpus(work: Work, gpus: int, accepted: Callable[[int], bool] = lambda count: True) -> int:
    """How many of several whole GPUs the learner should have, when the others score.

    Args:
        work: of an update.
        gpus: how many there are, at least 2.
        accepted: whether the learner can use so many.

    Returns:
        The number with which updates come fastest, from 1 to `gpus` − 1; of several that are equally
        fast the largest; 0 if none is accepted.
    """

    def updates(count: int) -> tuple[float, int]:
        scored = (gpus - count) / work.scoring if work.scoring else math.inf
        return min(count / work.training, scored), count

    return max((count for count in range(1, gpus) if accepted(count)), key=updates, default=0)


def wishes(config: ExperimentConfig, work: Callable[[], Work], gpus: int) -> dict[tuple[str, int], float]:
    """How many GPUs each node of a run on this machine is to have.

    As `resources` says. Where it does not: evaluators have none, the learner and the servers
    divide what is left, so that the learner's devices share every batch evenly.

    Args:
        config: of the run.
        work: counts an update's, if that is needed.
        gpus: how many there are, at least 1.

    Returns:
        GPUs by label and index of the nodes that can have some.

    Raises:
        ConfigError: if what is said leaves none for a node of which nothing is said.
    """
    said = config.resources.said()
    nodes = list(_nodes(config))
    servers = sum(label.startswith("inference/") for label, _ in nodes)
    evaluators = sum(label.startswith("evaluator/") for label, _ in nodes)
    each = {"evaluator": said.get("evaluator", 0.0), **said}
    left = gpus - _taken(each["evaluator"], evaluators)
    missing = {"learner", "inference"} - set(said) - (set() if servers else {"inference"})
    if not servers:
        each.setdefault("inference", 0.0)
    if left < 1 and missing:
        raise ConfigError(_none_left(config, sorted(missing)[0], gpus))
    if missing == {"learner", "inference"}:
        each |= _divided(config, work, left, servers)
    elif missing == {"learner"}:
        each["learner"] = _rest_for_learner(config, left, servers, each["inference"], gpus)
    elif missing == {"inference"}:
        each["inference"] = _rest_for_servers(config, left, servers, each["learner"], gpus)
    return {(label, index): each[label.split("/")[0]] for label, index in nodes}


def spread(gpus: int, servers: int) -> float:
    """What each of several servers has of some whole GPUs."""
    return gpus // servers if gpus >= servers else 1 / math.ceil(servers / gpus)


def _nodes(config: ExperimentConfig) -> Iterator[tuple[str, int]]:
    """Label and index of the nodes that compute with JAX, as in `program.build_program`."""
    yield from (("learner", host) for host in range(config.mesh.hosts))
    for name, own in config.data_sets.items():
        if own.has_servers:
            yield from ((f"inference/{name}", index) for index in range(own.inference.servers))
    yield from ((f"evaluator/{name}", 0) for name in config.evaluation.evaluators)


def _divided(config: ExperimentConfig, work: Callable[[], Work], gpus: int, servers: int) -> dict[str, float]:
    """For both."""
    hosts = config.mesh.hosts
    if gpus == 1 and hosts == 1:
        shares = (1 - LEARNERS_SHARE) / servers
        return {"learner": LEARNERS_SHARE, "inference": shares}
    count = learners_gpus(work(), gpus, lambda count: count % hosts == 0 and _suits(config, count // hosts))
    if not count:
        raise ConfigError(_none_left(config, "learner", gpus))
    return {"learner": count // hosts, "inference": spread(gpus - count, servers)}


def _rest_for_learner(config: ExperimentConfig, left: int, servers: int, server: float, gpus: int) -> float:
    """For each of its hosts, the most of what is left that it can use."""
    hosts = config.mesh.hosts
    shared = 1 - servers * server
    if left == 1 and hosts == 1 and 0 < server < 1 and shared > 0:
        return shared
    free = left - _taken(server, servers)
    counts = [count for count in range(1, free // hosts + 1) if _suits(config, count)]
    if not counts:
        raise ConfigError(_none_left(config, "learner", gpus))
    return max(counts)


def _rest_for_servers(config: ExperimentConfig, left: int, servers: int, learner: float, gpus: int) -> float:
    """For each of them an equal part of what is left."""
    if left == 1 and 0 < learner < 1:
        return (1 - learner) / servers
    free = left - _taken(learner, config.mesh.hosts)
    if free < 1:
        raise ConfigError(_none_left(config, "inference", gpus))
    return spread(free, servers)


def _taken(each: float, nodes: int) -> int:
    """Devices that nodes occupy."""
    return nodes * int(each) if each >= 1 or not each else math.ceil(nodes / int(1 / each + 1e-6))


def _suits(config: ExperimentConfig, devices: int) -> bool:
    """Whether a host of the learner can use so many devices."""
    try:
        learning.check_batches(config, devices * config.mesh.hosts)
    except ConfigError:
        return False
    return devices % config.mesh.fsdp == 0


def _none_left(config: ExperimentConfig, kind: str, gpus: int) -> str:
    said = ", ".join(f"resources.{name}.gpus={value:g}" for name, value in config.resources.said().items())
    mesh = f" that mesh.hosts={config.mesh.hosts}, mesh.fsdp={config.mesh.fsdp} and the batches allow"
    return (
        f"resources.{kind}.gpus=-1: {said or 'the default'} leaves none of {gpus} GPUs for it"
        f"{mesh if kind == 'learner' else ''}; give it some (0: it computes on the CPU)"
    )
