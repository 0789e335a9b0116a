"""Who may connect to a server over TCP: those who have the keys. Others are counted and logged."""

import contextlib
import logging
import time
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from classact.calls import keys as keys_lib
from classact.calls import protocol

# The last one is also of those who hang up first: a caller without keys, or a scan of ports.
_REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
# Between two lines about refused callers, who may try many times a second.
_LOG_SECONDS = 60.0


class Gate:
    """Decides for one server's socket; its methods are for the socket's thread.

    ZeroMQ asks who may come in through a socket of the same context, by its protocol ZAP
    (https://rfc.zeromq.org/spec/27), and tells of those who fail in its monitor.

    Attributes:
        refused: how many tries have failed.
    """

    def __init__(
        self, context: "zmq.Context[Any]", socket: "zmq.Socket[bytes]", keys: keys_lib.Keys, address: str
    ) -> None:
        """Guards a socket that is not bound yet."""
        self.refused = 0
        self._keys = keys
        self._address = address
        self._logged = -_LOG_SECONDS
        self._last_from = ""
        self._guarded = socket
        self._asked = context.socket(zmq.REP)
        self._asked.linger = 0
        self._asked.bind("inproc://zeromq.zap.01")
        keys_lib.ask_for(socket, keys)
        self._told = socket.get_monitor_socket(_REFUSED)

    @property
    def sockets(self) -> tuple[Any, ...]:
        """What to wait for."""
        return self._asked, self._told

    def attend(self) -> None:
        """Answers and hears what there is; does not wait."""
        while protocol.has_come(self._asked):
            self._decide()
        while protocol.has_come(self._told):
            recv_monitor_message(self._told)
            self._refuse()

    def close(self) -> None:
        """Closes its sockets, and says how many were refused; the guarded one must be closed after it."""
        if self.refused:
            logging.warning("calls at %s: refusals in all: %d", self._address, self.refused)
        self._guarded.disable_monitor()
        self._told.close(linger=0)
        self._asked.close(linger=0)

    def _decide(self) -> None:
        version, number, _, host, _, mechanism, *shown = self._asked.recv_multipart()
        known = mechanism == b"CURVE" and len(shown) == 1 and keys_lib.is_caller(shown[0], self._keys)
        if not known:
            # Addresses of IPv4 come in IPv6's way of writing them.
            self._last_from = f" from {host.decode(errors='replace').removeprefix('::ffff:')}"
        status = (b"200", b"OK") if known else (b"400", b"unknown key")
        with contextlib.suppress(zmq.ZMQError):
            self._asked.send_multipart([version, number, *status, b"", b""])

    def _refuse(self) -> None:
        self.refused += 1
        now = time.monotonic()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            logging.warning(
                "calls at %s: refused a caller%s without this run's keys (%d so far)",
                self._address,
                self._last_from,
                self.refused,
            )
        self._last_from = ""
