"""Answers calls: a thread that receives and sends, and workers that run the methods.

A method may wait inside (a long poll): it holds a worker, and others are made up to a limit.
All threads are daemons, so a method that hangs keeps no process alive. What waits is bounded,
in calls and in bytes; who calls beyond that is told so at once.
"""

import contextlib
import errno
import logging
import os
import queue
import select
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import zmq

from classact.calls import addresses, protocol, wire
from classact.calls import keys as keys_lib
from classact.calls.gate import Gate

# Answers that may wait for one caller, who has one call under way on a connection.
_UNSENT_ANSWERS = 16
# How long answers that are on their way may take when a server stops.
_LINGER_SECONDS = 1.0
# Keeps an error that comes again and again from filling the log.
_AFTER_ERROR_SECONDS = 0.1
# Of a traceback; its end says most.
_TRACEBACK_CHARACTERS = 8_000


class _Request(NamedTuple):
    caller: bytes
    head: bytes
    parts: Sequence[Any]
    size: int
    came: float


class Server:
    """Serves methods at an address from `start` to `stop`."""

    def __init__(
        self,
        address: str,
        methods: Mapping[str, Callable[..., Any]],
        keys: keys_lib.Keys | None = None,
        *,
        open_to_all: bool = False,
        threads: int = 16,
        max_waiting: int = 1024,
        max_bytes: int = protocol.MAX_CALL_BYTES,
    ) -> None:
        """Prepares a server; nothing listens yet.

        Args:
            address: "unix:/path", in a folder that is this user's alone, or "host:port".
            methods: what may be called, by name; called in several threads at once.
            keys: whoever calls over TCP must have them.
            open_to_all: answers over TCP without keys; for measurements alone.
            threads: how many methods may run at once.
            max_waiting: how many calls may wait for a thread besides.
            max_bytes: how large all arguments of calls that wait or run may be together.

        Raises:
            ValueError: for a bad address, or one of TCP without keys.
        """
        self._endpoints = addresses.to_bind(address)
        self.address = address
        self._over_tcp = addresses.unix_path(address) is None
        if self._over_tcp and keys is None and not open_to_all:
            raise ValueError(f"a server at {address} needs keys: whoever reaches a port could call it")
        self._keys = keys if self._over_tcp else None
        self._methods = dict(methods)
        self._max_threads = threads
        self._max_calls = threads + max_waiting
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._unfinished = self._bytes = self._workers = 0
        # None: no more will come.
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        # Of the socket: the thread that receives and the workers that send have it in turns.
        self._socket_lock = threading.Lock()
        self._wake = -1
        self._stopping = threading.Event()
        self._stop_by = 0.0
        self._gate: Gate | None = None
        self._thread: threading.Thread | None = None

    @property
    def refused(self) -> int:
        """How many tries to connect without the keys were refused."""
        return self._gate.refused if self._gate is not None else 0

    def start(self) -> None:
        """Listens and answers from now on.

        Raises:
            OSError: if the address cannot be had, or something answers there already.
        """
        if not self._over_tcp and addresses.answers(self.address):
            # Its socket would be taken from under it.
            raise OSError(f"something already listens at {self.address}")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            self._socket.linger = int(1000 * _LINGER_SECONDS)
            # An answer for a caller that reads none is dropped, and kept for nobody.
            self._socket.sndhwm = self._socket.rcvhwm = _UNSENT_ANSWERS
            self._socket.router_mandatory = True
            self._socket.maxmsgsize = protocol.MAX_CALL_BYTES
            self._socket.ipv6 = self._over_tcp
            if self._over_tcp:
                protocol.notice_lost_hosts(self._socket)
            if self._keys is not None:
                self._gate = Gate(self._context, self._socket, self._keys, self.address)
            self._bind()
        # It is raised again; a context that stays would hold the process at its end.
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._serve, name=f"calls at {self.address}", daemon=True)
        self._thread.start()

    def _bind(self) -> None:
        failure = OSError(errno.EADDRNOTAVAIL, "nowhere to listen")
        for endpoint in self._endpoints:
            try:
                self._socket.bind(endpoint)
            except zmq.ZMQError as error:
                failure = OSError(error.errno, f"cannot listen at {endpoint}: {error.strerror}")
                # Not there: the next one may do.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                    break
            else:
                path = addresses.unix_path(self.address)
                if path is not None:
                    os.chmod(path, 0o600)
                return
        raise failure

    def stop(self, grace: float = 1.0) -> None:
        """Ends the server: calls under way may end within `grace` seconds; blocks two seconds longer at most.

        The answer that ends the server may be lost, if its caller has not read it by then: the
        connection goes with what is unread in it. Safe to call twice, and before `start`.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop_by = time.monotonic() + grace
        with self._lock:
            self._stopping.set()
            self._wake_up()
        thread.join(grace + 2 * _LINGER_SECONDS)

    def _wake_up(self) -> None:
        """Lets the thread look again; the caller holds the lock."""
        if self._wake >= 0:  # Else it has ended, and what is left comes too late.
            os.eventfd_write(self._wake, 1)

    def _serve(self) -> None:
        """The thread that receives.

        It does not wait in ZeroMQ: workers send their answers themselves, under the lock, meanwhile.
        """
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for socket in (self._socket, *(self._gate.sockets if self._gate is not None else ())):
            poll.register(socket.fileno(), select.POLLIN)
        while not self._is_over():
            try:
                if not self._receive():
                    left = self._stop_by - time.monotonic()
                    ready = dict(poll.poll(1000 * max(0.0, left) if self._stopping.is_set() else None))
                    if self._wake in ready:
                        os.eventfd_read(self._wake)
                if self._gate is not None:
                    self._gate.attend()
            # Whatever somebody sent, the others are answered.
            except Exception:
                logging.exception("calls at %s: an error in what receives them", self.address)
                self._stopping.wait(_AFTER_ERROR_SECONDS)
        self._close()

    def _close(self) -> None:
        with self._lock:
            wake, self._wake = self._wake, -1
        os.close(wake)
        if self._gate is not None:
            self._gate.close()
        with self._socket_lock:
            path = addresses.unix_path(self.address)
            if path is not None:
                with contextlib.suppress(OSError):  # Its folder may have been removed.
                    os.unlink(path)
            self._socket.close()
        for _ in range(self._workers):
            self._requests.put(None)
        # Blocks while answers are on their way, for as long as they may linger.
        self._context.term()

    def _is_over(self) -> bool:
        if not self._stopping.is_set():
            return False
        with self._lock:
            return not self._unfinished or time.monotonic() >= self._stop_by

    def _receive(self) -> bool:
        """Takes a call, if one has come; whether there may be more."""
        with self._socket_lock:
            try:
                caller = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return False
            head = self._socket.recv() if self._socket.get(zmq.RCVMORE) else b""
            parts = protocol.rest_of(self._socket)
        if len(head) < protocol.NUMBER_BYTES:
            return True  # Not of ours; there is nothing that could be answered.
        request = _Request(caller, head, parts, len(head) + wire.size(parts), time.monotonic())
        with self._lock:
            refusal = self._no_room(request.size)
            if not refusal:
                self._unfinished += 1
                self._bytes += request.size
                more = self._unfinished > self._workers and self._workers < self._max_threads
                self._workers += more
        if refusal:
            self._send(request, wire.encode([protocol.BUSY, refusal]))
            return True
        self._requests.put(request)
        if more:
            threading.Thread(target=self._work, name=f"worker at {self.address}", daemon=True).start()
        return True

    def _no_room(self, size: int) -> str:
        """Why a call cannot be taken; "" if it can."""
        if self._stopping.is_set():
            return "the server is stopping"
        if self._unfinished >= self._max_calls:
            return f"{self._unfinished} calls wait or run already, the limit"
        if self._bytes + size > self._max_bytes:
            return (
                f"{self._bytes} bytes of calls wait or run already; "
                f"with {size} more they pass {self._max_bytes}"
            )
        return ""

    def _send(self, request: _Request, answer: Sequence[wire.Buffer]) -> None:
        """Sends an answer, in any thread."""
        first = protocol.numbered(request.head[: protocol.NUMBER_BYTES], answer)
        with self._socket_lock:
            if self._socket.closed:
                return  # It comes too late.
            try:
                protocol.send(self._socket, [request.caller, *first])
            except zmq.ZMQError as error:
                # It has gone, or does not read: it asks again if it wants to know.
                logging.debug("calls at %s: an answer was not sent: %s", self.address, error)
            came = protocol.has_come(self._socket)
        if came:
            # Sending took the notice of it that the other thread waits for.
            with self._lock:
                self._wake_up()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                answer = self._answer(request)
                if answer is not None:
                    self._send(request, answer)
            finally:
                with self._lock:
                    self._unfinished -= 1
                    self._bytes -= request.size
                    if self._stopping.is_set():
                        self._wake_up()
            # The next one may be long in coming.
            del request, answer

    def _answer(self, request: _Request) -> list[wire.Buffer] | None:
        """Runs a call; None if its caller has given it up meanwhile."""
        try:
            method, arguments, named, seconds = protocol.read_call(request.head, request.parts)
        except wire.WireError as error:
            return wire.encode([protocol.MALFORMED, str(error)])
        if time.monotonic() - request.came > seconds:
            return None
        function = self._methods.get(method)
        if function is None:
            known = ", ".join(sorted(self._methods)) or "nothing"
            return wire.encode([protocol.UNKNOWN, f"{method[:80]!r} cannot be called here; there is {known}"])
        try:
            return wire.encode([protocol.ANSWER, function(*arguments, **named)])
        # Whatever it raises is its caller's to know; a worker outlives it.
        except BaseException as error:
            said = traceback.format_exc()[-_TRACEBACK_CHARACTERS:]
            # Text that came from outside may hold what is no Unicode.
            said = said.encode(errors="backslashreplace").decode()
            return wire.encode([protocol.FAILED, type(error).__name__, said])
