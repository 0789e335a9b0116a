"""Which node has which GPUs of one machine: pure functions of wishes and of a list of devices.

A node wishes for whole GPUs (0, 1, 2, …), or for a share of one, above 0 and below 1,
which is a share of its memory: its computing time is divided by the driver, as it
comes. Every node that computes is a process of its own, which sees no other devices than
those given to it: JAX takes three quarters of the memory of all that it sees when it starts.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Hashable, Mapping, Sequence

from classact.launch.engines.outcome import LaunchError

# Of a GPU's memory, for all shares together. The rest is for what a process has there outside
# of JAX's pool: CUDA's context and libraries, about half a GB each.
_POOL = 0.9
# JAX refuses both at once; the first one is the older, and known to every version.
_FRACTIONS = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What a node has of a machine's GPUs.

    Attributes:
      devices: as CUDA_VISIBLE_DEVICES names them; empty: none.
      share: of the memory of its only device; 1: whole devices.
    """

    devices: tuple[str, ...] = ()
    share: float = 1.0

    def environment(self) -> dict[str, str]:
        """The variables that a node's process needs, to see these devices and no others."""
        if not self.devices:
            return {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(self.devices)}
        return {**variables, **memory_limit(self.share)}

    def __str__(self) -> str:
        part = f"{self.share:.0%} of " if self.share < 1 else ""
        return part + ", ".join(self.devices) if self.devices else "none"


def memory_limit(share: float) -> dict[str, str]:
    """The variable that keeps JAX within a share of a GPU's memory; none for a whole one.

    A limit of the user's own, under either name, is what is shared.
    """
    if not 0 < share < 1:
        return {}
    older, newer = _FRACTIONS
    name = newer if newer in os.environ else older
    try:
        pool = float(os.environ.get(name) or _POOL)
    except ValueError:
        raise LaunchError(
            f"{name}={os.environ[name]!r}: must be a number, a share of a GPU's memory"
        ) from None
    return {name: f"{share * pool:.3f}"}


def acceptable(gpus: float) -> bool:
    """Whether a node can have so many: a share of one, or whole ones."""
    return math.isfinite(gpus) and gpus >= 0 and (gpus < 1 or gpus == int(gpus))


def assign[Key: Hashable](wishes: Mapping[Key, float], devices: Sequence[str]) -> dict[Key, Assignment]:
    """Gives every node its GPUs.

    Whole ones come first, in the order of the wishes, and are neighbours in the list of
    devices. Shares are packed on as few of the others as can be, the largest first.

    Args:
      wishes: GPUs of each node, see `acceptable`.
      devices: of the machine, as CUDA_VISIBLE_DEVICES names them.

    Returns:
      The assignment of each node, in the order of `wishes`. No device is given to more nodes than
      fit it, and one that is whole to one node alone.

    Raises:
      LaunchError: if there are too few devices; says who wishes for how many, and how many there are.
    """
    found: dict[Key, Assignment] = {}
    free = list(devices)
    for key, wish in wishes.items():
        if wish >= 1:
            count = int(wish)
            if count > len(free):
                raise LaunchError(_too_few(wishes, devices))
            found[key] = Assignment(tuple(free[:count]))
            del free[:count]
    left = dict.fromkeys(free, 1.0)
    shares = sorted(((wish, key) for key, wish in wishes.items() if 0 < wish < 1), key=lambda item: -item[0])
    for wish, key in shares:
        # The fullest one that has room.
        fitting = [name for name, room in left.items() if room >= wish - _ROUNDING]
        if not fitting:
            raise LaunchError(_too_few(wishes, devices))
        name = min(fitting, key=lambda name: left[name])
        left[name] -= wish
        found[key] = Assignment((name,), wish)
    return {key: found.get(key, Assignment()) for key in wishes}


def fit(wishes: Sequence[float], capacity: float) -> bool:
    """Whether nodes' wishes fit a host together.

    Args:
      wishes: of the nodes.
      capacity: GPUs that are free there; the part below a whole one is of one GPU.
    """
    whole = int(capacity + _ROUNDING)
    rest = max(0.0, capacity - whole)
    # What others have of a GPU is a wish that was granted before.
    taken = [1 - rest] if rest > _ROUNDING else []
    devices = [str(index) for index in range(whole + len(taken))]
    try:
        assign(dict(enumerate([*wishes, *taken])), devices)
    except LaunchError:
        return False
    return True


def _too_few[Key: Hashable](wishes: Mapping[Key, float], devices: Sequence[str]) -> str:
    counts: dict[tuple[str, float], int] = {}
    for key, wish in wishes.items():
        if wish > 0:
            name = str(key[0]) if isinstance(key, tuple) else str(key)
            counts[name, wish] = counts.get((name, wish), 0) + 1
    wanted = ", ".join(
        f"{name} {f'{count} × ' if count > 1 else ''}{wish:g}" for (name, wish), count in counts.items()
    )
    total = sum(wish for wish in wishes.values())
    shares = " (a share lies on one GPU)" if any(0 < wish < 1 for wish in wishes.values()) else ""
    there = ", ".join(devices) or "none"
    return f"asked for {total:g} GPUs of {len(devices)}: {wanted}{shares}; there are: {there}"
