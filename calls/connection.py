"""One connection of a caller to a server, with at most one call under way."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from classact.calls import errors, protocol, wire
from classact.calls import keys as keys_lib

# Between two looks at the stop event; from there to the end of the wait.
_POLL_SECONDS = 0.2
# Between two tries to connect: at first, and at most, as it doubles.
_RETRY_MS, _LONGEST_RETRY_MS = 50, 500
# The server has gone away so often in the middle of a greeting: it does so for a key that it does not know.
_FAILED_GREETINGS = 5

_READY = zmq.EVENT_HANDSHAKE_SUCCEEDED
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_BROKEN = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class Connection:
    """A DEALER socket and its monitor, which says when the server is there, and when it is there again.

    What was sent to a server that died is lost: the call is sent anew after every greeting.
    """

    def __init__(self, endpoint: str, keys: keys_lib.Keys | None) -> None:
        """Begins to connect; does not wait.

        Args:
            endpoint: of `addresses.to_connect`.
            keys: shown to the server, which must have them too; None: none are asked for.
        """
        context: Any = zmq.Context.instance()
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        # Nothing waits in the socket for a server that is gone: the call does, here.
        self._socket.immediate = True
        self._socket.reconnect_ivl = _RETRY_MS
        self._socket.reconnect_ivl_max = _LONGEST_RETRY_MS
        self._socket.ipv6 = True
        protocol.notice_lost_hosts(self._socket)
        if keys is not None:
            keys_lib.show(self._socket, keys)
        self._monitor = self._socket.get_monitor_socket(_READY | _REFUSED | _BROKEN)
        self._socket.connect(endpoint)
        self._over_tcp = endpoint.startswith("tcp:")
        self._greetings = 0
        self._failed_greetings = 0
        self._patience = -1
        self._last_trouble = "nobody listens there"

    def ask(
        self,
        number: bytes,
        frames: Sequence[wire.Buffer],
        deadline: float,
        stop: threading.Event | None,
        what: str,
    ) -> Sequence[Any]:
        """Sends a call and returns the frames of its answer.

        Args:
            number: of the call, which no other of this caller has.
            frames: of `protocol.call`.
            deadline: of `time.monotonic`.
            stop: ends the wait soon.
            what: names the call in errors.

        Raises:
            NoAnswerError, StoppedError, RefusedError: see `Client.call`.
        """
        call = protocol.numbered(number, frames)
        stopped = False
        # The usual case: it is there, and answers.
        sent = self._greetings if self._greetings and self._send(call) else 0
        while True:
            now = time.monotonic()
            if stop is not None and not stopped and stop.is_set():
                # A server that is there still answers.
                stopped, deadline = True, min(deadline, now + _POLL_SECONDS)
            wait = min(deadline - now, _POLL_SECONDS)
            answer = self._receive(number, wait) if sent else None
            if answer is not None:
                return answer
            if wait <= 0:
                raise self._no_answer(what, stopped)
            if not sent:
                # A greeting, or room for what is to be sent.
                waited_for = [(self._socket, zmq.POLLOUT)] if self._greetings else []
                zmq.zmq_poll([*waited_for, (self._monitor, zmq.POLLIN)], 1 + int(1000 * wait))
            self._hear(what)
            if sent != self._greetings:
                sent = self._greetings if self._send(call) else 0

    def _no_answer(self, what: str, stopped: bool) -> errors.CallError:
        if stopped:
            return errors.StoppedError(f"asked to stop before {what} was answered")
        why = "no answer came in time" if self._greetings else self._last_trouble
        return errors.NoAnswerError(f"{what}: deadline exceeded: {why}")

    def wait_for_greeting(self, deadline: float, stop: threading.Event | None) -> bool:
        """Whether the server greets before the deadline, or before `stop`; RefusedError as `ask`."""
        while not self._greetings:
            left = deadline - time.monotonic()
            if left <= 0 or (stop is not None and stop.is_set()):
                return False
            if self._monitor.poll(1 + int(1000 * min(left, _POLL_SECONDS))):
                self._hear("a greeting")
        return True

    def close(self) -> None:
        """Closes it; what is under way is forgotten."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)

    def _send(self, call: Sequence[wire.Buffer]) -> bool:
        try:
            protocol.send(self._socket, call)
        except zmq.Again:
            return False
        return True

    def _receive(self, number: bytes, seconds: float) -> Sequence[Any] | None:
        """The answer, if it comes in time; those of calls that were given up are dropped."""
        milliseconds = 1 + max(0, int(1000 * seconds))
        if milliseconds != self._patience:
            self._socket.rcvtimeo = self._patience = milliseconds
        try:
            while True:
                first = self._socket.recv()
                rest = protocol.rest_of(self._socket)
                if first.startswith(number):
                    return [memoryview(first)[protocol.NUMBER_BYTES :], *rest]
        except zmq.Again:
            return None

    def _hear(self, what: str) -> None:
        while protocol.has_come(self._monitor):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event & _READY:
                self._greetings += 1
                self._failed_greetings = 0
            elif event & _REFUSED:
                raise errors.RefusedError(f"{what}: the server does not take this caller's keys")
            else:
                self._failed_greetings += 1
                self._last_trouble = "the server went away before it had greeted"
                # At a Unix socket nobody asks for keys: it was stopped, or died.
                if self._over_tcp and self._failed_greetings >= _FAILED_GREETINGS:
                    raise errors.RefusedError(
                        f"{what}: the server went away {_FAILED_GREETINGS} times before it had greeted; "
                        "is it of another run, with other keys?"
                    )
