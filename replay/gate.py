"""Lets processes on other hosts reach a Unix socket over TCP, if they show the run's certificate."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path

from classact.replay.certificate import Identity

# Bytes that are read at once, and that may wait in one direction of a connection.
_READ_BYTES = 1 << 18
_WAITING_BYTES = 1 << 20
_GREETING_SECONDS = 10.0
# Who has not shown the certificate yet; more have to wait in the kernel's queue.
_MOST_GREETINGS = 64
# Between two lines about refused connections, of which there may be many a second.
_LOG_SECONDS = 60.0


class Gate:
    """Passes bytes between TLS connections to a port and connections to a Unix socket.

    Both ends show the same certificate, see `certificate`, so that neither is an impostor;
    what they say is encrypted. Works in a thread of its own until `close`.

    Attributes:
        refused: connections so far that did not show the certificate.
    """

    def __init__(self, address: str, path: Path, identity: Identity) -> None:
        """Opens the port.

        Args:
            address: "host:port" to listen at: on the interface that a number names; on all,
                if it is a name or this machine does not have the number itself.
            path: of the Unix socket; tried anew for each connection.
            identity: of the run.

        Raises:
            OSError: if the port is taken.
        """
        self.refused = 0
        self._address = address
        self._path = path
        self._context = _context(identity)
        self._greetings = asyncio.Semaphore(_MOST_GREETINGS)
        self._logged = -_LOG_SECONDS
        self._listening = _listening(address)
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"gate of {address}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Closes the port and all connections; safe to call twice."""
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        accepting = self._loop.create_task(self._accept())
        self._loop.run_forever()
        tasks = [accepting, *self._connections]
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._listening.close()
        self._loop.close()

    async def _accept(self) -> None:
        while True:
            await self._greetings.acquire()
            try:
                connection, (host, *_) = await self._loop.sock_accept(self._listening)
            except OSError as error:  # Too many open files, or the caller is gone again.
                self._greetings.release()
                logging.warning("replay at %s: no connection accepted: %s", self._address, error)
                await asyncio.sleep(0.1)
                continue
            task = self._loop.create_task(self._pass_on(connection, host))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _pass_on(self, connection: socket.socket, host: str) -> None:
        """Serves one connection until either side ends it."""
        try:
            reader, writer = await self._greet(connection)
        except (OSError, EOFError) as error:  # Among them ssl.SSLError and TimeoutError.
            self._refuse(host, error)
            return
        finally:
            self._greetings.release()
        with contextlib.closing(writer), contextlib.suppress(OSError):
            answers, questions = await asyncio.open_unix_connection(self._path, limit=_WAITING_BYTES)
            with contextlib.closing(questions):
                directions = [
                    asyncio.ensure_future(_pump(reader, questions)),
                    asyncio.ensure_future(_pump(answers, writer)),
                ]
                try:
                    await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for direction in directions:
                        direction.cancel()
                    await asyncio.gather(*directions, return_exceptions=True)

    async def _greet(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = asyncio.StreamReader(limit=_WAITING_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=_GREETING_SECONDS
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    def _refuse(self, host: str, error: Exception) -> None:
        self.refused += 1
        now = time.monotonic()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            logging.warning(
                "replay at %s: refused a connection from %s without this run's key (%d so far): %s",
                self._address,
                host,
                self.refused,
                error or type(error).__name__,
            )


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while some := await reader.read(_READ_BYTES):
        writer.write(some)
        await writer.drain()


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.certificate.decode())
    context.set_alpn_protocols(["h2"])  # gRPC insists on it.
    # `ssl` takes a key from a file alone; this one is this user's, and gone at once.
    with tempfile.NamedTemporaryFile(prefix="classact-") as file:
        file.write(identity.certificate + identity.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _listening(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with contextlib.suppress(ValueError):
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        try:
            return _unblocked(socket.create_server((host, int(port)), family=family))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # A gateway's, which passes connections on.
                raise
    if socket.has_dualstack_ipv6():
        return _unblocked(
            socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        )
    return _unblocked(socket.create_server(("", int(port))))


def _unblocked(opened: socket.socket) -> socket.socket:
    opened.setblocking(False)
    return opened
