"""What each kind of task may use of its machine, as environment variables."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping

from classact.launch.engines.outcome import LaunchError


@dataclasses.dataclass(frozen=True)
class Resources:
    """Environment of the tasks of one label.

    Attributes:
      threads: number of processor threads that JAX, TensorFlow and NumPy may
        each compute with; None leaves them at one per core.
      jax_platforms: value of JAX_PLATFORMS, for instance "cpu"; None leaves it.
      cuda_visible_devices: value of CUDA_VISIBLE_DEVICES, "" for none of them;
        None leaves it.
      env: further variables; they win over all others.
    """

    threads: int | None = None
    jax_platforms: str | None = None
    cuda_visible_devices: str | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads = {self.threads}: must be at least 1, or None for no limit")

    def environment(self) -> dict[str, str]:
        """Returns the variables to set for a task."""
        variables: dict[str, str] = {}
        if self.threads is not None:
            variables.update(thread_limits(self.threads))
        if self.jax_platforms is not None:
            variables["JAX_PLATFORMS"] = self.jax_platforms
        if self.cuda_visible_devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.cuda_visible_devices
        return {**variables, **self.env}


def thread_limits(threads: int) -> dict[str, str]:
    """Returns the variables that limit each library's compute threads.

    Found by counting the threads that were given processor time (JAX 0.6.2,
    TensorFlow 2.8, NumPy with OpenBLAS):

    - NPROC sizes both of XLA's CPU thread pools exactly. Neither OMP_NUM_THREADS
      nor XLA_FLAGS=--xla_cpu_multi_thread_eigen=false changes anything there.
      With NPROC=1 a jitted function must not call back into Python.
    - TensorFlow needs both of its variables; with only one of them set to 1 a
      second thread still shares the work. Its MKL kernels follow OMP_NUM_THREADS.
    - OpenBLAS follows OMP_NUM_THREADS unless OPENBLAS_NUM_THREADS is set.

    gRPC's and Reverb's own threads are not limited: they move data and sleep.
    """
    names = (
        "NPROC",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    )
    return dict.fromkeys(names, str(threads))


def common_environment(hosts: Iterable[str]) -> dict[str, str]:
    """Returns the variables that every task gets.

    Args:
      hosts: addresses of the hosts that the program's servers run on.
    """
    variables = {
        # A crash inside C++ leaves a Python traceback in the log too.
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": _tensorflow_log_level(),
    }
    return {**variables, **proxy_exceptions(hosts)}


def _tensorflow_log_level() -> str:
    # "1" is nobody's wish: JAX sets it wherever it is imported.
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1")
    return "2" if level == "1" else level


def proxy_exceptions(hosts: Iterable[str]) -> dict[str, str]:
    """Returns variables that keep gRPC from reaching `hosts` through a proxy.

    gRPC honours http_proxy for every address. It reads `no_grpc_proxy` and, only
    where that is not set, `no_proxy`.
    """
    wanted = list(dict.fromkeys(["localhost", "127.0.0.1", "::1", *hosts]))
    variables = {}
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        if name == "no_grpc_proxy" and name not in os.environ:
            continue
        present = [host for host in os.environ.get(name, "").split(",") if host]
        variables[name] = ",".join(dict.fromkeys([*present, *wanted]))
    return variables


def check_labels(resources: Mapping[str, Resources], labels: Iterable[str]) -> None:
    """Makes sure that every entry is for at least one label.

    Raises:
      LaunchError: naming the entry and the labels there are.
    """
    labels = list(labels)
    for prefix in resources:
        if not any(_covers(prefix, label) for label in labels):
            raise LaunchError(
                f"resources are given for {prefix!r}, which is no label of the program "
                f"or the first part of one; there are: {', '.join(labels)}"
            )


def resources_of(label: str, resources: Mapping[str, Resources]) -> Resources:
    """Returns the entry of the longest prefix of `label`, by whole parts.

    "evaluator" covers "evaluator/test"; "" covers all. Entries are not merged.
    """
    covering = [prefix for prefix in resources if _covers(prefix, label)]
    return resources[max(covering, key=len)] if covering else Resources()


def _covers(prefix: str, label: str) -> bool:
    return prefix in ("", label) or label.startswith(prefix + "/")
