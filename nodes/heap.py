"""Memory that a compiler has freed goes back to the operating system."""

import ctypes
import functools
from typing import Any

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
# Shorter compilations leave little behind, and giving back takes some milliseconds.
_LONG_SECONDS = 0.2


@functools.cache
def give_back_after_compiling() -> None:
    """From now on, returns this process's freed memory after each compilation that took long.

    The threads of XLA's compiler leave hundreds of megabytes of freed memory in glibc's arenas,
    which a node would hold to its end. Does nothing without glibc, nor the second time.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def give_back(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED and duration_secs > _LONG_SECONDS:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(give_back)
