"""What caller and server say to each other: the frames of a value, the first one after a number.

A call is `[method, arguments, named arguments, seconds]`, its answer begins with one of the
kinds below. The number is the caller's own, and tells answers to calls that it gave up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from classact.calls import wire

NUMBER_BYTES = 8
# Of a call; a server hangs up on whoever sends more at once, before it knows who that is.
MAX_CALL_BYTES = 2**30
ANSWER, FAILED, BUSY, UNKNOWN, MALFORMED = range(5)

# Shorter frames are copied, which takes less than to share them with ZeroMQ and to hear when it is done.
_COPIED = 2**18
# A host that is gone says nothing: after so many seconds of silence the connection is taken down.
_LOST_AFTER_SECONDS = 5


def call(
    method: str, arguments: Sequence[Any], named: Mapping[str, Any], seconds: float
) -> list[wire.Buffer]:
    """A call without its number, whose caller waits so many seconds; WireError as `wire.encode`."""
    return wire.encode([method, list(arguments), dict(named), seconds])


def read_call(head: bytes, parts: Sequence[Any]) -> tuple[str, tuple[Any, ...], dict[str, Any], float]:
    """What `call` made, with its number.

    Raises:
        wire.WireError: if the frames hold no call.
    """
    found = wire.decode([memoryview(head)[NUMBER_BYTES:], *parts])
    if not isinstance(found, tuple) or len(found) != 4:
        raise wire.WireError("no call")
    method, arguments, named, seconds = found
    plain = isinstance(method, str) and isinstance(arguments, tuple) and isinstance(named, dict)
    if not plain or type(seconds) is not float or not all(isinstance(name, str) for name in named):
        raise wire.WireError("no call")
    return method, arguments, named, seconds


def numbered(number: bytes, frames: Sequence[wire.Buffer]) -> list[wire.Buffer]:
    """The frames as they are sent: the first one begins with the number."""
    return [number + frames[0], *frames[1:]]


def send(socket: "zmq.Socket[bytes]", frames: Sequence[wire.Buffer]) -> None:
    """Sends frames without waiting; large ones are not copied, and must not change.

    Raises:
        zmq.ZMQError: if they cannot be sent now; nothing of them is.
    """
    *others, last = frames
    for number, frame in enumerate(others):
        try:
            socket.send(frame, zmq.NOBLOCK | zmq.SNDMORE, copy=len(frame) < _COPIED)
        except zmq.Again:
            # The connection broke between two frames. ZeroMQ now drops all that it is given up to a last
            # frame, which would be that of the next call.
            if number:
                socket.send(b"", zmq.NOBLOCK)
            raise
    socket.send(last, zmq.NOBLOCK, copy=len(last) < _COPIED)


def has_come(socket: "zmq.Socket[bytes]") -> bool:
    """Whether something can be received."""
    return bool(int(socket.get(zmq.EVENTS)) & zmq.POLLIN)


def rest_of(socket: "zmq.Socket[bytes]") -> list[Any]:
    """The frames that follow the one just received, not copied."""
    parts = []
    while socket.get(zmq.RCVMORE):
        parts.append(socket.recv(copy=False))
    return parts


def notice_lost_hosts(socket: "zmq.Socket[bytes]") -> None:
    """Lets a TCP connection to a host that is gone end within seconds, idle or not."""
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 1
    socket.tcp_keepalive_intvl = 1
    socket.tcp_keepalive_cnt = _LOST_AFTER_SECONDS - 1
    socket.tcp_maxrt = 1000 * _LOST_AFTER_SECONDS
