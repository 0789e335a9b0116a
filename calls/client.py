"""Calls a server: waits for one that is not there yet, and asks again when it comes back.

So a call may come twice, or be answered by a server that was started again meanwhile: what is
called must bear that (at least once, never at most once).
"""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from classact.calls import addresses, errors, protocol, wire
from classact.calls import keys as keys_lib
from classact.calls.connection import Connection

CALL_SECONDS = 600.0


class Client:
    """Callable from any thread: every call that is under way has a connection of its own.

    It may be built before its server is there, copied to another process as (address, keys),
    and used after a fork.
    """

    def __init__(
        self,
        address: str,
        keys: keys_lib.Keys | None = None,
        *,
        timeout: float = CALL_SECONDS,
        open_to_all: bool = False,
    ) -> None:
        """Takes a server's address; connects when it is first called.

        Args:
            address: "unix:/path" or "host:port".
            keys: of the run, to call over TCP.
            timeout: seconds that a call may take unless it says otherwise.
            open_to_all: the server over TCP asks for no keys.

        Raises:
            ValueError: for a bad address, or one of TCP without keys.
        """
        self._endpoint = addresses.to_connect(address)
        over_tcp = addresses.unix_path(address) is None
        if over_tcp and keys is None and not open_to_all:
            raise ValueError(f"to call {address} takes the keys of its run")
        self.address = address
        self._keys = keys if over_tcp else None
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._process = os.getpid()
        self._numbers = itertools.count(1)

    def call(
        self,
        method: str,
        arguments: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        stop: threading.Event | None = None,
    ) -> Any:
        """Calls a method and waits for its answer; signals are handled meanwhile, in the main thread.

        Args:
            method: one that the server names for others.
            arguments: values that `wire` carries; must not change before the answer is there.
            named: the same by name.
            timeout: seconds to wait at most, also for a server that is not there.
            stop: ends the wait, within half a second.

        Raises:
            RemoteError: if the method failed.
            NoAnswerError: after the time-out.
            StoppedError: if `stop` is set before there is an answer.
            BusyError: if too much waits at the server.
            RefusedError: if it asks for other keys.
            WireError: if an argument cannot be sent, or all are too large together.
        """
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        frames = protocol.call(method, arguments, named or {}, float(seconds))
        size = wire.size(frames)
        if size > protocol.MAX_CALL_BYTES:
            most = protocol.MAX_CALL_BYTES
            raise wire.WireError(f"{method}: {size} bytes are more than a call carries, {most}")
        number = next(self._numbers).to_bytes(protocol.NUMBER_BYTES, "big")
        with self._connection() as connection:
            answer = connection.ask(number, frames, deadline, stop, f"{method} of {self.address}")
        return _value(answer, method)

    def greets(self, timeout: float, stop: threading.Event | None = None) -> bool:
        """Whether the server is there, and takes this caller; blocks for `timeout` seconds at most.

        A server's socket may take a connection although its process is stopped: that is no greeting.
        """
        connection = Connection(self._endpoint, self._keys)
        try:
            return connection.wait_for_greeting(time.monotonic() + timeout, stop)
        except errors.RefusedError:
            return False
        finally:
            connection.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """One that nobody else uses; closed after anything but an answer: nothing late comes of it."""
        if os.getpid() != self._process:
            # Those of the process that this one was forked from are its own.
            self._idle, self._process = [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = Connection(self._endpoint, self._keys)
        try:
            yield connection
        # Whatever cut the call short, an interrupt too: its answer must not be the next call's.
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def close(self) -> None:
        """Closes the connections that nobody uses; the client can be called again."""
        while self._idle:
            self._idle.pop().close()


def _value(answer: Sequence[Any], method: str) -> Any:
    try:
        found = wire.decode(answer)
        kind, value, *more = found
    except (wire.WireError, TypeError, ValueError) as error:
        raise errors.CallError(f"{method}: the answer cannot be read: {error}") from None
    if kind == protocol.ANSWER:
        return value
    if kind == protocol.FAILED:
        raise errors.RemoteError(str(value), str(more[0] if more else ""))
    if kind == protocol.BUSY:
        raise errors.BusyError(f"{method}: {value}")
    raise errors.CallError(f"{method}: {value}")
