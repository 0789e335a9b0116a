"""The engines by the names that `--launch` gives them.

An engine of classact's own is a folder here whose `__init__.py` registers it. One of a
user's is a class that `--launch=package.module:Class` names, see docs/engines.md.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from classact import user_code
from classact.launch import engines

if TYPE_CHECKING:
    from classact.launch.engines.interface import Engine

DEFAULT = "processes"
_places: dict[str, str] = {}


def register(name: str, place: str) -> None:
    """Gives an engine its name.

    Args:
      name: what `--launch` calls it.
      place: `package.module:Class`; imported when it is asked for, so that an engine whose
        libraries are missing is in nobody's way.
    """
    _places[name] = place


def names() -> tuple[str, ...]:
    """The names of all registered engines; the default one first."""
    for module in pkgutil.iter_modules(engines.__path__, f"{engines.__name__}."):
        if module.ispkg:
            importlib.import_module(module.name)
    return (DEFAULT, *sorted(set(_places) - {DEFAULT}))


def get(name: str) -> Engine:
    """Makes an engine.

    Args:
      name: one of `names`, or the `package.module:Class` of a user's.

    Raises:
      ValueError: if there is none of that name, or it is no engine; one line says why.
    """
    # Not above: who imports a part of an engine registers it, and need not load more.
    from classact.launch.engines.interface import Engine

    known = names()
    if name in known:
        module, _, attribute = _places[name].partition(":")
        return getattr(importlib.import_module(module), attribute)()
    if not user_code.is_name(name):
        raise ValueError(
            f"launch={name!r}: expected one of {', '.join(known)}, or package.module:Class of your own"
        )
    found = user_code.find("launch", name)
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise ValueError(f"launch={name!r}: must be a class derived from {Engine.__module__}.Engine")
    try:
        return found()
    except TypeError as error:
        raise ValueError(f"launch={name!r}: {error}") from None
