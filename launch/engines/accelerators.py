"""Which accelerators of this machine a process may use, without using one.

NVIDIA's GPUs are asked of `nvidia-smi` and of CUDA_VISIBLE_DEVICES, which a user or Slurm may have
set. JAX is not asked: a process that has seen a GPU through JAX keeps memory of it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

# With many GPUs that nobody holds open, the driver loads for each first.
_ANSWER_SECONDS = 60.0
_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
_MB = 2**20
_DEVICE_FILES = pathlib.Path("/dev")
_UUID = re.compile(r"(GPU|MIG)-\S+")


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU that a process may use.

    Attributes:
      name: as CUDA_VISIBLE_DEVICES names it: its number, or its UUID or the beginning of it.
      model: what it is, such as "NVIDIA H200"; "" if nobody said.
      memory_gb: its memory, in GB of 10^9 bytes; 0 if nobody said.
      uuid: that no other has; "" if nobody said.
    """

    name: str
    model: str = ""
    memory_gb: float = 0.0
    uuid: str = ""

    def __str__(self) -> str:
        memory = f", {self.memory_gb:.0f} GB" if self.memory_gb else ""
        return f"{self.name} ({self.model or 'unknown'}{memory})"


@dataclasses.dataclass(frozen=True)
class Found:
    """What there is.

    Attributes:
      gpus: those that a process started here may use.
      why: if there are none, why; a clause.
      by_bus: whether the numbers count as the bus does, which CUDA must be told.
    """

    gpus: tuple[Gpu, ...]
    why: str = ""
    by_bus: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """What makes the names mean in CUDA what they mean here."""
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if self.by_bus else {}


def found(environment: Mapping[str, str] | None = None) -> Found:
    """Finds the GPUs that JAX could use in a process that is started from here; blocks a minute at most.

    Args:
      environment: of that process; None: this one's.
    """
    environment = os.environ if environment is None else environment
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & {*platforms.split(",")}:
        return Found((), f"JAX_PLATFORMS={platforms} leaves JAX none")
    if not has_cuda_plugin():
        return Found((), "JAX is installed without CUDA here: pip install 'classact[cuda]'")
    said = _asked()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = _counted() if said is None else said
        why = "" if gpus else "there is no NVIDIA GPU, or no driver for it (try nvidia-smi)"
        return Found(tuple(gpus), why, by_bus="CUDA_DEVICE_ORDER" not in environment)
    chosen = tuple(select(visible, said))
    return Found(
        chosen, "" if chosen else f"CUDA_VISIBLE_DEVICES={visible!r} leaves none of {len(said or ())}"
    )


def has_cuda_plugin() -> bool:
    """Whether JAX is installed with support for NVIDIA's GPUs."""
    return any("cuda" in plugin.value for plugin in importlib.metadata.entry_points(group="jax_plugins"))


def has_tpu_library() -> bool:
    """Whether JAX is installed with support for TPUs, and not told to leave them."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return (not platforms or "tpu" in platforms.split(",")) and importlib.util.find_spec("libtpu") is not None


def select(visible: str, there: Sequence[Gpu] | None) -> list[Gpu]:
    """The devices that a value of CUDA_VISIBLE_DEVICES leaves, as CUDA reads it.

    It takes numbers, and UUIDs or what they begin with. The first word that is no device ends
    the list, so that "-1" leaves none; a device that is named twice leaves none too.

    Args:
      visible: the value.
      there: all devices of the machine, by number; None: unknown, then every number and
        UUID is taken for one.

    Returns:
      The devices by the names that the value has for them, in its order.
    """
    chosen: list[Gpu] = []
    for word in (word.strip() for word in visible.split(",")):
        gpu = _named(word, there)
        if gpu is None:
            break
        chosen.append(gpu)
    identities = [gpu.uuid or gpu.name for gpu in chosen]
    return chosen if len(set(identities)) == len(identities) else []


def parse(said: str) -> list[Gpu]:
    """Reads the lines of `nvidia-smi` (index, UUID, model, MiB), in the order of the numbers."""
    gpus = []
    for line in said.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4 or not fields[0].isdigit():
            continue
        index, uuid, model, memory = fields
        # "[N/A]" where a GPU shares the machine's memory.
        memory_gb = float(memory) * _MB / 1e9 if memory.isdigit() else 0.0
        gpus.append(Gpu(index, model, memory_gb, uuid))
    return sorted(gpus, key=lambda gpu: int(gpu.name))


def _named(word: str, there: Sequence[Gpu] | None) -> Gpu | None:
    if there is None:
        known = word.isdigit() or _UUID.fullmatch(word)
        return Gpu(word, uuid=word if _UUID.fullmatch(word) else "") if known else None
    if word.isdigit():
        return there[int(word)] if int(word) < len(there) else None
    if word.startswith("MIG-"):
        # A part of a GPU; nvidia-smi does not list them here.
        return Gpu(word, "MIG", uuid=word)
    fitting = [gpu for gpu in there if word.startswith("GPU-") and gpu.uuid.startswith(word)]
    return dataclasses.replace(fitting[0], name=word) if len(fitting) == 1 else None


def _counted() -> list[Gpu]:
    """The GPUs by their device files, in a container without nvidia-smi; CUDA counts them from 0."""
    files = [file for file in _DEVICE_FILES.glob("nvidia*") if file.name.removeprefix("nvidia").isdigit()]
    return [Gpu(str(index)) for index in range(len(files))]


def _asked() -> list[Gpu] | None:
    """What nvidia-smi says; None if it does not."""
    if shutil.which(_QUERY[0]) is None:
        return None
    try:
        done = subprocess.run(
            _QUERY,
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse(done.stdout) if done.returncode == 0 else None
