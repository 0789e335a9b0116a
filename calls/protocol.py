"""What caller and server say to each other: a number, and a value of `wire`.

A call is `[method, arguments, named arguments, seconds]`, its answer begins with one of the
kinds below. The number is the caller's own, and tells answers to calls that it gave up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from classact.calls import wire

NUMBER_BYTES = 8
ANSWER, FAILED, BUSY, UNKNOWN, MALFORMED = range(5)

# A host that is gone says nothing: after so many seconds of silence the connection is taken down.
_LOST_AFTER_SECONDS = 5


def call(
    method: str, arguments: Sequence[Any], named: Mapping[str, Any], seconds: float
) -> list[wire.Buffer]:
    """The frames of a call, whose caller waits so many seconds; WireError as `wire.encode`."""
    return wire.encode([method, list(arguments), dict(named), seconds])


def read_call(frames: Sequence[Any]) -> tuple[str, tuple[Any, ...], dict[str, Any], float]:
    """What `call` made.

    Raises:
        wire.WireError: if the frames hold no call.
    """
    found = wire.decode(frames)
    if not isinstance(found, tuple) or len(found) != 4:
        raise wire.WireError("no call")
    method, arguments, named, seconds = found
    plain = isinstance(method, str) and isinstance(arguments, tuple) and isinstance(named, dict)
    if not plain or type(seconds) is not float or not all(isinstance(name, str) for name in named):
        raise wire.WireError("no call")
    return method, arguments, named, seconds


def notice_lost_hosts(socket: "zmq.Socket[bytes]") -> None:
    """Lets a TCP connection to a host that is gone end within seconds, idle or not."""
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 1
    socket.tcp_keepalive_intvl = 1
    socket.tcp_keepalive_cnt = _LOST_AFTER_SECONDS - 1
    socket.tcp_maxrt = 1000 * _LOST_AFTER_SECONDS
