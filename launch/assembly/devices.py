"""Whether the learner's devices suit its configuration, asked before anything starts."""

import importlib.metadata
import os
import subprocess
import sys

from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly.parts import learning
from classact.nodes import mesh

# To import JAX and to find the devices.
_ANSWER_SECONDS = 60.0
_QUESTION = "import jax; print(jax.default_backend(), jax.local_device_count())"
_SEVERAL_CPUS = "xla_force_host_platform_device_count"


def check(config: ExperimentConfig) -> None:
    """Checks the mesh and the batches against the devices that a learner on this machine will see.

    Another process counts them, in a second or two (a minute at most), since one that has
    seen a GPU keeps its memory. It is not asked where there is one CPU and nothing to
    split: that suits all. On a cluster's hosts the learner checks the same itself.

    Raises:
        ConfigError: if `mesh.fsdp` does not divide the number of devices, these cannot
            share a batch evenly, or JAX does not start.
    """
    if config.mesh.fsdp == 1 and not _may_be_several():
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"JAX did not count its devices within {_ANSWER_SECONDS:.0f} s") from None
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
        raise ConfigError(f"JAX does not find its devices: {last}")
    backend, count = asked.stdout.split()[-2:]
    try:
        mesh.check_fsdp(config.mesh.fsdp, int(count), config.mesh.hosts, backend)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    learning.check_batches(config, int(count) * config.mesh.hosts)


def _may_be_several() -> bool:
    """Whether there is more than a CPU: a plug-in for others, or the wish to see one as several."""
    others = importlib.metadata.entry_points(group="jax_plugins")
    return bool(others) or _SEVERAL_CPUS in os.environ.get("XLA_FLAGS", "")
