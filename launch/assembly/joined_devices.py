"""Which devices evaluators and actors use that join a run from outside.

The run may have this machine's GPUs, and a process that opens one takes most of its memory, at the
latest from a node of the run that is started again. So who joins keeps off them, unless
the user says by CUDA_VISIBLE_DEVICES which ones it is to have.
"""

import os
from collections.abc import Collection, Mapping

import jax

from classact.launch.assembly import gpu_split
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.engines import accelerators
from classact.launch.engines.gpus import Assignment, assign


def keep_off(said: FirstLines) -> None:
    """Makes this process compute on the CPU, if nobody says on which of this machine's GPUs.

    Call it before anything is computed.

    Args:
        said: is told.
    """
    if "CUDA_VISIBLE_DEVICES" not in os.environ and accelerators.found().gpus:
        jax.config.update("jax_platforms", "cpu")
        said.say(_KEPT_OFF)


def environments(labels: Collection[str], said: FirstLines) -> dict[str, Mapping[str, str]]:
    """Divides the GPUs that the user names among processes that score; none has one if nobody says which.

    Args:
        labels: of the processes.
        said: is told who has what.

    Returns:
        Variables for the environment of each, by its label.

    Raises:
        LaunchError: if they cannot be divided.
    """
    there = accelerators.found()
    if not there.gpus or not labels:
        return {label: {} for label in labels}
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        said.say(_KEPT_OFF)
        return {label: Assignment().environment() for label in labels}
    each = gpu_split.spread(len(there.gpus), len(labels))
    assigned = assign(dict.fromkeys(labels, each), [gpu.name for gpu in there.gpus])
    said.say("GPUs: " + "; ".join(f"{label} {item}" for label, item in assigned.items()))
    return {label: item.environment() for label, item in assigned.items()}


_KEPT_OFF = (
    "computes on the CPU: the run may have this machine's GPUs; CUDA_VISIBLE_DEVICES says which to use, and "
    "XLA_PYTHON_CLIENT_MEM_FRACTION how much of their memory"
)
