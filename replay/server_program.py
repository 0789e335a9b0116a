"""Serves tables until the process that started it closes its standard input, or dies.

Runs under the Python that has Reverb, 3.10 or 3.11, as `python -I server_program.py <JSON>`, and
imports nothing of classact: `server_process` starts it, and says what is in the JSON. It prints
"ready" once the tables are there, and nothing else on its standard output.

Of Reverb it loads the compiled part alone. The Python one above it would import TensorFlow, for
readers that are not used here: 6 s of a processor and 340 MB.
"""

import ctypes
import importlib.util
import json
import os
import pathlib
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
# What reaches all of a job's or a terminal's processes: whoever started this one decides when it ends.
_LEFT_ALONE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# For every item that leaves: each is given out once.
_MAX_TIMES_SAMPLED = 1


def main(argument: str) -> None:
    """Serves; does not return."""
    for number in _LEFT_ALONE:
        signal.signal(number, signal.SIG_IGN)
    asked = json.loads(argument)
    _die_with(asked["parent"])
    reverb = load_reverb()
    # Loaded before the server listens: what comes between that and the move is as short as can be.
    listener = _module("unix_listener", pathlib.Path(__file__).with_name("unix_listener.py"))
    server = reverb.Server(
        [_table(reverb, table) for table in asked["tables"]],
        0,
        reverb.create_default_checkpointer(asked["written"], "", asked["loaded"]),
    )
    # Reverb takes a port and nothing else, and would serve there whoever comes.
    listener.move(pathlib.Path(asked["socket"]))
    _serve_until_asked(server)


def _serve_until_asked(server: Any) -> None:
    print("ready", flush=True)
    sys.stdin.buffer.read()
    # Nothing is to be saved, and an orderly end of the server would wait seconds for its clients
    # to hang up.
    sys.stderr.flush()
    os._exit(0)


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when the thread that started it ends, however it ends.

    By the closed standard input alone it would live on as long as another child of its parent
    holds the other end, or Reverb holds Python up.

    Raises:
        OSError: if the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # It may have died before the call above: nobody is left to signal.
    if os.getppid() != parent:
        sys.exit("who started the replay server is gone")


def load_reverb() -> Any:
    """Returns Reverb's compiled module.

    Raises:
        ImportError: if Reverb or TensorFlow are not installed.
    """
    # Its functions take arrays. Imported first: TensorFlow's library brings other versions of
    # what NumPy loads.
    import numpy  # noqa: F401

    ctypes.CDLL(str(_folder_of("tensorflow") / "libtensorflow_framework.so.2"))
    return _module("libpybind", _folder_of("reverb") / "libpybind.so")


def _module(name: str, path: pathlib.Path) -> Any:
    """Loads one file as a module, and nothing around it."""
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _folder_of(package: str) -> pathlib.Path:
    """Where a package is, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{package} is not installed in {sys.prefix}")
    return pathlib.Path(found.submodule_search_locations[0])


def _table(reverb: Any, asked: dict[str, Any]) -> Any:
    smallest_first = asked["smallest_first"]
    return reverb.Table(
        name=asked["name"],
        sampler=reverb.HeapSelector(True) if smallest_first else reverb.FifoSelector(),
        remover=reverb.FifoSelector(),
        max_size=asked["max_size"],
        max_times_sampled=_MAX_TIMES_SAMPLED,
        rate_limiter=reverb.RateLimiter(
            samples_per_insert=asked["samples_per_insert"],
            min_size_to_sample=asked["min_size_to_sample"],
            min_diff=asked["min_diff"],
            max_diff=asked["max_diff"],
        ),
        extensions=[],
        signature=bytes.fromhex(asked["signature"]),
    )


if __name__ == "__main__":
    main(sys.argv[1])
