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
        self._greetings = 0
        self._failed_greetings = 0
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
        sent, stopped = -1, False
        while True:
            if self._monitor.get(zmq.EVENTS):
                self._hear(what)
            if self._greetings and sent != self._greetings and self._send(number, frames):
                sent = self._greetings
            now = time.monotonic()
            if stop is not None and not stopped and stop.is_set():
                # A server that is there still answers.
                stopped, deadline = True, min(deadline, now + _POLL_SECONDS)
            left = deadline - now
            if left <= 0 and stopped:
                raise errors.StoppedError(f"asked to stop before {what} was answered")
            if left <= 0:
                why = "no answer came in time (deadline exceeded)"
                if not self._greetings:
                    why = f"deadline exceeded: {self._last_trouble}"
                raise errors.NoAnswerError(f"{what}: {why}")
            wanted = zmq.POLLIN if sent == self._greetings else zmq.POLLIN | zmq.POLLOUT
            wait = min(left, _POLL_SECONDS)
            # Until a greeting nothing can be sent, whatever the socket says.
            mine = [(self._socket, wanted)] if self._greetings else []
            zmq.zmq_poll([*mine, (self._monitor, zmq.POLLIN)], 1 + int(1000 * wait))
            answer = self._receive(number) if mine else None
            if answer is not None:
                return answer

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

    def _send(self, number: bytes, frames: Sequence[wire.Buffer]) -> bool:
        try:
            self._socket.send_multipart([number, *frames], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def _receive(self, number: bytes) -> Sequence[Any] | None:
        """The answer, if it is there; those of calls that were given up are dropped."""
        while self._socket.get(zmq.EVENTS) & zmq.POLLIN:
            first, *rest = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            if first.bytes == number and rest:
                return rest
        return None

    def _hear(self, what: str) -> None:
        while self._monitor.get(zmq.EVENTS) & zmq.POLLIN:
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event & _READY:
                self._greetings += 1
                self._failed_greetings = 0
            elif event & _REFUSED:
                raise errors.RefusedError(f"{what}: the server does not take this caller's keys")
            else:
                self._failed_greetings += 1
                self._last_trouble = "the server went away before it had greeted"
                if self._failed_greetings >= _FAILED_GREETINGS:
                    raise errors.RefusedError(
                        f"{what}: the server went away {_FAILED_GREETINGS} times before it had greeted; "
                        "is it of another run, with other keys?"
                    )
