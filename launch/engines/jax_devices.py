"""Which devices JAX finds on this machine, asked in a process of its own.

One that has seen a GPU through JAX keeps memory of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from classact.experiments.config import ConfigError

# To import JAX and to find the devices.
_ANSWER_SECONDS = 60.0
_QUESTION = "import jax; print(jax.default_backend(), jax.local_device_count())"


def counted(environment: Mapping[str, str]) -> tuple[str, int]:
    """Counts the devices that JAX finds in a process started from here; blocks a minute at most.

    Args:
      environment: variables of that process, beside those of this one.

    Returns:
      JAX's name of their kind, such as "gpu", and their number.

    Raises:
      ConfigError: if JAX does not start, or does not answer.
    """
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            env={**os.environ, **environment},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"JAX did not count its devices within {_ANSWER_SECONDS:.0f} s") from None
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
        raise ConfigError(f"JAX does not find its devices: {last}")
    backend, count = asked.stdout.split()[-2:]
    return backend, int(count)
