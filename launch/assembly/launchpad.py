"""Launchpad's own Python files, with a module of ours in the place of its C++ Courier.

Launchpad is the language in which a program is written: groups, nodes, handles, addresses.
All of that is pure Python and runs on any. Its wheel is for Python 3.10 alone because of
Courier, its RPC, a C++ library bound to TensorFlow 2.8. So the wheel is unpacked, not
installed, none of its files is changed, and three things of ours stand in front of them:

- the module `courier`, which calls by `classact.calls`; what asks it for wrappers of C++
  (`courier.handlers.python.pybind`) gets the methods themselves;
- `pybind11_abseil.status`, whose `StatusNotOk` is what our failed calls raise;
- for a `CourierNode` alone, what takes the port out of its address: a Unix socket has none, so
  its server is given the whole address.

docs/launchpad.md says what to do when there is a wheel that works without.

Whoever needs Launchpad takes it from here: `from classact.launch.assembly.launchpad import lp`.
"""

import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

from classact import calls, environments
from classact.launch.assembly import courier


def _module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(content, __path__=[])
    return module


def _load() -> types.ModuleType:
    """Makes `launchpad` and what it imports of C++ findable, once in a process."""
    if "launchpad" in sys.modules:
        return sys.modules["launchpad"]
    sys.modules["courier"] = courier
    for name in ("courier.handlers", "courier.handlers.python", "pybind11_abseil"):
        sys.modules[name] = _module(name)
    pybind = _module("courier.handlers.python.pybind", BuildPyCallHandler=lambda function: function)
    sys.modules["courier.handlers.python"].__dict__["pybind"] = pybind
    sys.modules[pybind.__name__] = pybind
    sys.modules["pybind11_abseil.status"] = _module("pybind11_abseil.status", StatusNotOk=calls.CallError)
    # It imports distutils, which Python no longer has, to look for terminals that nobody opens.
    terminals = "launchpad.launch.run_locally.feature_testing"
    sys.modules[terminals] = _module(terminals)
    folder = environments.launchpad_folder() / "launchpad"
    spec = importlib.util.spec_from_file_location(
        "launchpad", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["launchpad"] = module
    spec.loader.exec_module(module)
    node = sys.modules["launchpad.nodes.courier.node"]
    node.__dict__["lp_address"] = types.SimpleNamespace(
        Address=sys.modules["launchpad.address"].__dict__["Address"],
        get_port_from_address=lambda address: address,
    )
    return module


if TYPE_CHECKING:
    import launchpad as lp
else:
    lp = _load()

from launchpad import address  # noqa: E402
from launchpad.launch import serialization, worker_manager  # noqa: E402
from launchpad.nodes import base  # noqa: E402

PROCESS_ENTRY = environments.launchpad_folder() / "launchpad" / "nodes" / "python" / "process_entry.py"

__all__ = ["PROCESS_ENTRY", "address", "base", "lp", "serialization", "worker_manager"]
