"""Calls between processes: values and arrays, never code.

`Server` answers the methods that it was given, `Client` asks; both over Unix sockets on one
machine and, between hosts, over TCP with keys. They know nothing of nodes, of launching or
of Launchpad, and import nothing else of classact: everybody may use them.
"""

from classact.calls.client import CALL_SECONDS, Client
from classact.calls.errors import (
    BusyError,
    CallError,
    NoAnswerError,
    RefusedError,
    RemoteError,
    StoppedError,
)
from classact.calls.exposure import exposed, exposed_methods
from classact.calls.keys import Keys
from classact.calls.protocol import MAX_CALL_BYTES
from classact.calls.server import Server
from classact.calls.wire import WireError

__all__ = [
    "CALL_SECONDS",
    "MAX_CALL_BYTES",
    "BusyError",
    "CallError",
    "Client",
    "Keys",
    "NoAnswerError",
    "RefusedError",
    "RemoteError",
    "Server",
    "StoppedError",
    "WireError",
    "exposed",
    "exposed_methods",
]
