"""Which node has which devices of this machine, and whether they suit the configuration.

Asked before anything starts, and without using a device.
"""

import dataclasses
import importlib.metadata
import os
from collections.abc import Mapping

from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly import gpu_split
from classact.launch.assembly.parts import learning, shapes
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.engines import accelerators, jax_devices
from classact.launch.engines.gpus import Assignment, assign
from classact.launch.engines.interface import Engine
from classact.launch.engines.outcome import LaunchError
from classact.nodes import mesh

_SEVERAL_CPUS = "xla_force_host_platform_device_count"
_LEARNER = ("learner", 0)
# The one that asks must leave the memory to the one that trains.
_ASKING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which devices each node's process sees.

    Attributes:
        nodes: variables for the environment of a node, by its label and index in the group.
        others: those of all other nodes.
    """

    nodes: Mapping[tuple[str, int], Mapping[str, str]] = dataclasses.field(default_factory=dict)
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def environment(self, label: str, index: int) -> Mapping[str, str]:
        """What a node's process has in its environment; nothing where there is nothing to divide."""
        return self.nodes.get((label, index), self.others)


def place(config: ExperimentConfig, engine: Engine, data: shapes.DataShape, said: FirstLines) -> Placement:
    """Divides this machine's devices among the nodes, and checks the learner's.

    With `--launch=processes`; with `threads` and `synchronous`, which are one process, it has all. A cluster
    divides its hosts' devices itself, and its hosts check the learner's.

    Args:
        config: of the run.
        engine: how it is run.
        data: the shape of the data, to count the models' work.
        said: is told who has which GPUs.

    Raises:
        ConfigError: for GPUs that are not there or that this launch cannot divide, or if the
            learner's cannot share a batch evenly.
    """
    _check_engine(config, engine)
    if not engine.has_nodes or engine.several_hosts:
        return Placement()
    if not engine.one_process:
        there = accelerators.found()
        if there.gpus:
            return _divided(config, there, data, said)
        wanted = {kind: gpus for kind, gpus in config.resources.said().items() if gpus > 0}
        if wanted:
            kind, gpus = next(iter(wanted.items()))
            raise ConfigError(f"resources.{kind}.gpus={gpus:g}: there are 0 GPUs: {there.why}")
    backend = check(config)
    if backend != "tpu" or engine.one_process:
        return Placement()
    if config.mesh.hosts > 1:
        raise ConfigError(
            f"mesh.hosts={config.mesh.hosts}: must be 1 on one machine with a TPU: all of its chips are one "
            "process's"
        )
    said.say("TPU: the learner has all chips of this machine, all other nodes compute on the CPU")
    return Placement({_LEARNER: {}}, {"JAX_PLATFORMS": "cpu"})


def check(config: ExperimentConfig) -> str:
    """Checks the mesh and the batches against the devices that a learner on this machine will see.

    Another process counts them, in a second or two (a minute at most), since one that has
    seen a GPU keeps its memory. It is not asked where there is one CPU and nothing to
    split: that suits all.

    Returns:
        JAX's name of the devices' kind, such as "gpu".

    Raises:
        ConfigError: if `mesh.fsdp` does not divide the number of devices, these cannot
            share a batch evenly, or JAX does not start.
    """
    if config.mesh.fsdp == 1 and not _may_be_several():
        return "cpu"
    backend, count = jax_devices.counted({})
    _check_suits(config, backend, count)
    return backend


def _check_suits(config: ExperimentConfig, backend: str, count: int) -> None:
    try:
        mesh.check_fsdp(config.mesh.fsdp, count, config.mesh.hosts, backend)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    learning.check_batches(config, count * config.mesh.hosts)


def _check_engine(config: ExperimentConfig, engine: Engine) -> None:
    if engine.has_nodes and not engine.one_process:
        return
    for kind, gpus in config.resources.said().items():
        raise ConfigError(
            f"resources.{kind}.gpus={gpus:g}: must be -1 with this launch, one process that has all GPUs"
        )


def _divided(
    config: ExperimentConfig, there: accelerators.Found, data: shapes.DataShape, said: FirstLines
) -> Placement:
    names = [gpu.name for gpu in there.gpus]
    wishes = gpu_split.wishes(config, lambda: gpu_split.work_of(config, data), len(names))
    try:
        assigned = assign(wishes, names)
        environments = {
            key: {**there.environment, **assignment.environment()} for key, assignment in assigned.items()
        }
    except LaunchError as error:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        because = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
        raise ConfigError(f"resources: {error}{because}") from None
    learner = assigned[_LEARNER]
    backend, count = jax_devices.counted(environments[_LEARNER] | _ASKING)
    shown = ",".join(learner.devices)
    if learner.devices and (backend, count) != ("gpu", len(learner.devices)):
        raise ConfigError(
            f"JAX finds {count} {backend} with CUDA_VISIBLE_DEVICES={shown} (the learner's): "
            "see what `python -c 'import jax; jax.devices()'` says (JAX_PLATFORMS=cpu trains on the CPU)"
        )
    _check_suits(config, backend, count)
    said.say(_described(assigned))
    return Placement(environments, Assignment().environment())


def _described(assigned: Mapping[tuple[str, int], Assignment]) -> str:
    """Who has what, for the first lines."""
    having = [(label, index, item) for (label, index), item in assigned.items() if item.devices]
    several = {label for label, index in assigned if index > 0}
    listed = [f"{label}{f' {index}' if label in several else ''} {item}" for label, index, item in having]
    return f"GPUs: {'; '.join(listed) or 'none is used'}; all other nodes compute on the CPU"


def _may_be_several() -> bool:
    """Whether there is more than a CPU: a plug-in for others, or the wish to see one as several."""
    others = importlib.metadata.entry_points(group="jax_plugins")
    several = _SEVERAL_CPUS in os.environ.get("XLA_FLAGS", "")
    return bool(others) or several or accelerators.has_tpu_library()
