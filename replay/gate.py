"""Lets processes on other hosts reach a Unix socket over TCP, if they show the run's certificate."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from classact.replay import certificate
from classact.replay.certificate import Identity

# Bytes that may wait in one direction of a connection.
_WAITING_BYTES = 1 << 18
_GREETING_SECONDS = 10.0
# Who has not shown the certificate yet; more have to wait in the kernel's queue.
_MOST_GREETINGS = 64
# Between two lines about refused connections, of which there may be many a second.
_LOG_SECONDS = 60.0
# Between two looks at a host that says nothing, and how many in vain end its connections.
_LOOK_SECONDS = 10
_LOST_AFTER_LOOKS = 3
# After an error that is the machine's, such as too many open files.
_PAUSE_SECONDS = 0.1


class Gate:
    """Passes bytes between TLS connections to a port and connections to a Unix socket.

    Both ends show the same certificate, see `certificate`, so that neither is an impostor;
    what they say is encrypted. Each connection has a thread of its own until `close`.

    Attributes:
        address: "host:port" where it listens.
        refused: connections so far that did not show the certificate.
    """

    def __init__(self, address: str, path: Path, identity: Identity) -> None:
        """Opens the port.

        Args:
            address: "host:port" to listen at: on the interface that a number names; on all,
                if it is a name or this machine does not have the number itself. Port 0 is
                any that is free.
            path: of the Unix socket; tried anew for each connection.
            identity: of the run.

        Raises:
            OSError: if the port is taken.
        """
        self.refused = 0
        self._path = path
        self._context = certificate.server_context(identity)
        self._greetings = threading.BoundedSemaphore(_MOST_GREETINGS)
        self._logged = -_LOG_SECONDS
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listening = _listening(address)
        self.address = f"{address.rpartition(':')[0]}:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, name=f"gate of {address}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Closes the port and all connections; safe to call twice."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                _hang_up(connection)

    def _accept(self) -> None:
        with self._listening:
            while not self._closed.is_set():
                if not self._greetings.acquire(timeout=_PAUSE_SECONDS):
                    continue
                try:
                    connection, (host, *_) = self._listening.accept()
                except OSError as error:  # Closed, too many open files, or the caller is gone again.
                    self._greetings.release()
                    if not self._closed.wait(_PAUSE_SECONDS):
                        logging.warning("replay at %s: no connection accepted: %s", self.address, error)
                    continue
                try:
                    threading.Thread(target=self._pass_on, args=(connection, host), daemon=True).start()
                except RuntimeError as error:  # No more threads: the caller comes again.
                    connection.close()
                    self._greetings.release()
                    logging.warning("replay at %s: no thread for a connection: %s", self.address, error)
                    self._closed.wait(_PAUSE_SECONDS)

    def _pass_on(self, connection: socket.socket, host: str) -> None:
        """Serves one connection until either side ends it."""
        with connection, contextlib.ExitStack() as opened:
            try:
                # Until it returns, `connection` is what is open; then that is detached.
                outside = opened.enter_context(self._greet(connection))
            except OSError as error:  # Among them ssl.SSLError and TimeoutError.
                self._refuse(host, error)
                return
            finally:
                self._greetings.release()
            with self._known(outside), contextlib.suppress(OSError):
                inside = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                inside.connect(str(self._path))
                _relay(outside, inside)

    def _greet(self, connection: socket.socket) -> ssl.SSLSocket:
        connection.settimeout(_GREETING_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A host that is gone says nothing: without a look at it, its connection would stay for hours.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _LOOK_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _LOOK_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _LOST_AFTER_LOOKS)
        return self._context.wrap_socket(connection, server_side=True)

    @contextlib.contextmanager
    def _known(self, connection: socket.socket) -> Iterator[None]:
        """Has `close` end the connection."""
        with self._lock:
            self._connections.add(connection)
            if self._closed.is_set():
                _hang_up(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _refuse(self, host: str, error: Exception) -> None:
        with self._lock:
            self.refused += 1
            now = time.monotonic()
            if now - self._logged < _LOG_SECONDS:
                return
            self._logged = now
        logging.warning(
            "replay at %s: refused a connection from %s without this run's key (%d so far): %s",
            self.address,
            host,
            self.refused,
            error or type(error).__name__,
        )


class _Way:
    """One direction of a connection, between two sockets that do not block."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self._buffer = memoryview(bytearray(_WAITING_BYTES))
        self._start = self._end = 0

    @property
    def waits(self) -> bool:
        """Whether there is something that the target did not take yet."""
        return self._start < self._end

    def move(self) -> bool:
        """Passes on what can be passed on now; returns whether that was anything.

        Raises:
            EOFError: if the source has ended, and all is passed on.
            OSError: if a side is gone.
        """
        taken = not self.waits and self._take()
        return self._give() or taken

    def _take(self) -> bool:
        self._start = self._end = 0
        # TLS gives a record of 16 KB at a time; and what it holds back, `poll` does not see.
        while self._end < len(self._buffer):
            try:
                size = self.source.recv_into(self._buffer[self._end :])
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            if size == 0:
                if not self.waits:
                    raise EOFError
                break
            self._end += size
        return self.waits

    def _give(self) -> bool:
        before = self._start
        while self.waits:
            try:
                self._start += self.target.send(self._buffer[self._start : self._end])
            except (BlockingIOError, ssl.SSLWantWriteError):
                break
        return self._start > before


def _relay(outside: socket.socket, inside: socket.socket) -> None:
    """Passes bytes both ways until one side ends.

    Raises:
        OSError: if a side is gone.
    """
    outside.setblocking(False)
    inside.setblocking(False)
    ways = (_Way(outside, inside), _Way(inside, outside))
    with contextlib.suppress(EOFError):
        while True:
            if not any([way.move() for way in ways]):
                _wait(ways)


def _wait(ways: tuple[_Way, _Way]) -> None:
    """Blocks until one of the ways can move something."""
    wanted: dict[socket.socket, int] = {}
    for way in ways:
        waited_for, event = (way.target, select.POLLOUT) if way.waits else (way.source, select.POLLIN)
        wanted[waited_for] = wanted.get(waited_for, 0) | event
    poll = select.poll()
    for waited_for, events in wanted.items():
        poll.register(waited_for, events)
    poll.poll()


def _hang_up(connection: socket.socket) -> None:
    # Not `close`: the connection's own thread may be using it.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _listening(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with contextlib.suppress(ValueError):
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        try:
            return socket.create_server((host, int(port)), family=family)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # A gateway's, which passes connections on.
                raise
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", int(port)))
