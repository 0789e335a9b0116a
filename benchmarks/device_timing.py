"""What is needed to time an accelerator: calls that do not wait, peak rates, memory, a limit of time."""

import dataclasses
import math
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

# Dense products of bfloat16 (float16 where there is none) with float32 sums, in TFLOP/s, from the vendors'
# data sheets. By words of the device's name; the first that fits counts.
_PEAK_TFLOPS = {
    "gb200": 2500.0,
    "b200": 2250.0,
    "h200": 989.0,
    "gh200": 989.0,
    "h100 nvl": 835.0,
    "h100 pcie": 756.0,
    "h100": 989.0,
    "h20": 148.0,
    "a100": 312.0,
    "a800": 312.0,
    "a40": 150.0,
    "a30": 165.0,
    "a10g": 70.0,
    "a10": 125.0,
    "l40s": 362.0,
    "l40": 181.0,
    "l4": 121.0,
    "rtx 4090": 165.0,
    "v100": 125.0,
    "t4": 65.0,
    "tpu v6": 918.0,
    "tpu v5 lite": 197.0,
    "tpu v5e": 197.0,
    "tpu v5p": 459.0,
    "tpu v5": 459.0,
    "tpu v4": 275.0,
}
# A repeat takes at least so long, so that starting and ending it is no matter.
_REPEAT_SECONDS = 0.3


def peak_tflops(kind: str) -> float | None:
    """The peak rate of a device by JAX's name of its kind; None if it is not in the table."""
    return next(
        (peak for name, peak in _PEAK_TFLOPS.items() if re.search(rf"\b{name}\b", kind.lower())), None
    )


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median: over the repeats.
        low: of the fastest repeat.
        high: of the slowest one.
        repeats: their number.
        calls: of each repeat.
    """

    median: float
    low: float
    high: float
    repeats: int
    calls: int


class Budget:
    """Time that may be spent; parts of one kind are taken to last as long as the longest of them so far."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins now."""
        self._clock = clock
        self._end = clock() + seconds
        self._longest: dict[str, float] = {}

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self._end - self._clock()

    def allows(self, kind: str) -> bool:
        """Whether another part of a kind may be begun."""
        return self.left > self._longest.get(kind, 0.0)

    def spend(self, kind: str, part: Callable[[], None]) -> None:
        """Does a part, and notes how long it took."""
        started = self._clock()
        try:
            part()
        finally:
            self._longest[kind] = max(self._longest.get(kind, 0.0), self._clock() - started)


def time_calls(call: Callable[[], Any], seconds: float, repeats: int = 5) -> Timing:
    """Times calls that return before the device has computed.

    The first calls, in which the device warms up, do not count. In each repeat several calls are
    handed over one after another, as in training, and then all results are waited for.

    Args:
        call: hands over work, compiled already; returns arrays of its result, that no later call donates.
        seconds: to spend, about; one repeat at least is made.
        repeats: at most.
    """
    jax.block_until_ready(call())
    started = time.perf_counter()
    jax.block_until_ready(call())
    one = time.perf_counter() - started
    calls = max(1, math.ceil(min(_REPEAT_SECONDS, seconds / repeats) / max(one, 1e-9)))
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < repeats and (not found or time.perf_counter() < end):
        started = time.perf_counter()
        jax.block_until_ready([call() for _ in range(calls)])
        found.append((time.perf_counter() - started) / calls)
    return Timing(statistics.median(found), min(found), max(found), len(found), calls)


def memory_of(compiled: Any) -> int | None:
    """Bytes of the device that a compiled function takes, arguments and results included; None if unknown."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return int(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        # Donated: results that lie where arguments did.
        - found.alias_size_in_bytes
    )


def memory_seen(device: jax.Device) -> dict[str, int]:
    """The most bytes that this process has had of a device, and may have; empty if unknown."""
    stats = device.memory_stats() or {}
    return {name: int(stats[name]) for name in ("peak_bytes_in_use", "bytes_limit") if name in stats}


def out_of_memory(error: Exception) -> bool:
    """Whether an error of JAX says that the device's memory is full."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
