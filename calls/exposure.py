"""Which methods of an object others may call: those that its class names, and no others."""

from collections.abc import Callable
from typing import Any

_MARK = "_exposed_to_calls"


def exposed[Method: Callable[..., Any]](method: Method) -> Method:
    """Marks a method as one that other processes may call.

    It runs in a thread of the server's, several at once; a call may come twice (see `Client`).
    """
    setattr(method, _MARK, True)
    return method


def is_exposed(method: Any) -> bool:
    """Whether a method of an object is marked."""
    return callable(method) and getattr(method, _MARK, False) is True


def exposed_methods(instance: Any) -> dict[str, Callable[..., Any]]:
    """The methods of an object that others may call, by name."""
    names = [name for name in dir(type(instance)) if is_exposed(getattr(type(instance), name, None))]
    return {name: getattr(instance, name) for name in names}
