"""A stream of HTTP/2 whose answer goes from the socket into the memory that it is for.

gRPC's Python and protobuf copy what they receive several times before it lies where it is used: for
150 KB they take 110 µs of CPU, and this 45 (`benchmarks/reading.py`). A learner receives little else, so
its readers speak HTTP/2 themselves: as much of it (RFC 9113) as a client needs that makes one call
after another, with a request of one frame.
"""

import contextlib
import socket
import urllib.parse
from collections.abc import Callable, Sequence

import grpc
import hpack

from classact.replay import certificate

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACKNOWLEDGED, _PADDED, _PRIORITY = 0x1, 0x4, 0x1, 0x8, 0x20
_FRAME_HEAD = 9
# What is asked for is bounded by the request, and the socket holds the server up. So windows are as
# large as they can be, and are opened again after half a gigabyte.
_WIDEST = (1 << 31) - 1
_OPEN_AGAIN = 1 << 29
_FIRST_WINDOW = (1 << 16) - 1
# No table for headers, no pushed streams, frames as long as the server likes: gRPC's are 2 MB then.
_OUR_SETTINGS = ((1, 0), (2, 0), (4, _WIDEST), (5, (1 << 24) - 1))
# What is received at once beside what goes into its place; a frame of another kind must fit in.
_AT_ONCE = 1 << 14
_BUFFER = 1 << 16
_CONNECT_SECONDS = 20.0
# A host that says nothing is looked at, and given up after so many looks in vain.
_LOOK_SECONDS, _LOOKS = 10, 3
_STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class EndedError(Exception):
    """The server has ended the call.

    Attributes:
        status: gRPC's name of it, such as "OK".
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}" if message else status)
        self.status = status


class Connection:
    """One connection, for one call at a time. Of one thread, but for `close`.

    What the server says arrives as the bytes of its messages, each behind five of its own, whatever
    frames they came in. Each method that reads blocks until there is something, or `close`.
    """

    def __init__(self, address: str) -> None:
        """Connects; blocks for some seconds at most.

        Args:
            address: "unix:/path", or "host:port", to which this process's run is shown.

        Raises:
            OSError: if the server is not there, or is another's.
            ValueError: over TCP, if this process was told of no keys.
        """
        self._address = address
        self._socket = _connected(address)
        self._received_into = _receiver(self._socket)
        self._stream = -1
        self._headers = hpack.Decoder()
        # Bytes of messages from `_start` to `_end`, and what is behind them, up to `_filled`, is of the
        # next frames. Either that is nothing, or nothing is outstanding of the present frame.
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = self._filled = 0
        self._outstanding = 0
        self._unacknowledged = 0
        self._of_stream = 0
        self._ended: EndedError | None = None
        settings = b"".join(number.to_bytes(2) + value.to_bytes(4) for number, value in _OUR_SETTINGS)
        window = (_WIDEST - _FIRST_WINDOW).to_bytes(4)
        self._send(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, window))

    @property
    def is_used_up(self) -> bool:
        """Whether it has no number left for another call."""
        return self._stream >= _WIDEST - 2

    def call(self, method: str, request: bytes) -> None:
        """Begins a call, when the one before it has ended.

        Args:
            method: its path.
            request: the only message, at most 16 KB.

        Raises:
            OSError: if the connection has broken.
        """
        self._stream += 2
        self._of_stream, self._ended = 0, None
        # The first two of HPACK's own table: POST and http.
        fields = {b":path": method.encode(), b":authority": b"replay", b"te": b"trailers"}
        fields[b"content-type"] = b"application/grpc"
        head = b"\x83\x86" + b"".join(
            b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
            for name, value in fields.items()
        )
        message = b"\x00" + len(request).to_bytes(4) + request
        self._send(
            _frame(_HEADERS, _END_HEADERS, self._stream, head)
            + _frame(_DATA, _END_STREAM, self._stream, message)
        )

    def peek(self, size: int) -> memoryview:
        """The next bytes, which stay unread: so many, or less if the call ends with them.

        Args:
            size: at most 16 KB.

        Raises:
            EndedError: if the call has ended, and all is read.
            OSError: if the connection breaks, or the server speaks something else.
        """
        while self._end - self._start < size:
            if self._ended is not None:
                if self._start == self._end:
                    raise self._ended
                break
            self._receive()
        return self._buffer[self._start : min(self._start + size, self._end)]

    def skip(self, size: int) -> None:
        """Reads what `peek` has shown."""
        self._start += size

    def read_into(self, place: memoryview) -> None:
        """Reads as many bytes as there is room for.

        Args:
            place: of bytes, contiguous.

        Raises:
            EndedError: if the call ends before.
            OSError: as `peek`.
        """
        at = self._take(place)
        while at < len(place):
            if self._outstanding:
                # Nothing is in the buffer.
                rest = place[at : at + self._outstanding]
                got = self._received_into((rest, self._buffer[:_AT_ONCE]))
                beyond = max(0, got - len(rest))
                at += got - beyond
                self._outstanding -= got - beyond
                self._start = self._end = 0
                self._filled = beyond
                self._find_messages()
            elif self._ended is not None:
                raise self._ended
            else:
                self._receive()
            at += self._take(place[at:])

    def close(self) -> None:
        """Closes it; in whatever thread, it ends the others' waiting."""
        with contextlib.suppress(OSError):
            # Not TLS's own, which is for the thread that reads.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, frames: bytes) -> None:
        self._socket.sendall(frames)

    def _take(self, place: memoryview) -> int:
        """Moves what is in the buffer to its place; returns how much."""
        size = min(len(place), self._end - self._start)
        if size:
            place[:size] = self._buffer[self._start : self._start + size]
            self._start += size
        return size

    def _receive(self) -> None:
        """Receives what there is into the buffer."""
        if self._start == self._filled:
            self._start = self._end = self._filled = 0
        elif self._start > _BUFFER // 2:
            self._buffer[: self._filled - self._start] = self._buffer[self._start : self._filled]
            self._end -= self._start
            self._filled -= self._start
            self._start = 0
        free = self._buffer[self._filled : self._filled + _AT_ONCE]
        if not free:
            raise _ProtocolError("a frame is too long")
        self._filled += self._received_into((free,))
        self._find_messages()

    def _find_messages(self) -> None:
        """Takes the heads of frames, and whole frames of other kinds, out of what was received."""
        if self._outstanding:
            size = min(self._outstanding, self._filled - self._end)
            self._end += size
            self._outstanding -= size
        while not self._outstanding and self._filled - self._end >= _FRAME_HEAD:
            head = bytes(self._buffer[self._end : self._end + _FRAME_HEAD])
            size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
            if kind == _DATA:
                if flags & _PADDED:
                    raise _ProtocolError("frames are padded")
                self._cut(_FRAME_HEAD)
                here = min(size, self._filled - self._end)
                self._end += here
                self._outstanding = size - here
                self._count(size)
            elif self._filled - self._end < _FRAME_HEAD + size:
                return
            else:
                payload = bytes(self._buffer[self._end + _FRAME_HEAD : self._end + _FRAME_HEAD + size])
                self._cut(_FRAME_HEAD + size)
                self._heed(kind, flags, int.from_bytes(head[5:]), payload)

    def _cut(self, size: int) -> None:
        """Removes what comes next, so that messages are in one piece."""
        rest = self._filled - size
        self._buffer[self._end : rest] = self._buffer[self._end + size : self._filled]
        self._filled = rest

    def _count(self, size: int) -> None:
        """Opens the windows again, by what has come."""
        self._unacknowledged += size
        self._of_stream += size
        if self._unacknowledged >= _OPEN_AGAIN:
            self._send(_frame(_WINDOW, 0, 0, self._unacknowledged.to_bytes(4)))
            self._unacknowledged = 0
        if self._of_stream >= _OPEN_AGAIN:
            self._send(_frame(_WINDOW, 0, self._stream, self._of_stream.to_bytes(4)))
            self._of_stream = 0

    def _heed(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _PING and not flags & _ACKNOWLEDGED:
            self._send(_frame(_PING, _ACKNOWLEDGED, 0, payload))
        elif kind == _SETTINGS and not flags & _ACKNOWLEDGED:
            self._send(_frame(_SETTINGS, _ACKNOWLEDGED, 0, b""))
        elif kind == _HEADERS:
            if not flags & _END_HEADERS or flags & (_PADDED | _PRIORITY):
                raise _ProtocolError("headers come in pieces")
            self._read_headers(payload, bool(flags & _END_STREAM))
        elif kind == _RESET and stream == self._stream:
            self._ended = EndedError("CANCELLED", f"the stream was reset, error {int.from_bytes(payload)}")
        elif kind == _GO_AWAY:
            raise ConnectionResetError(f"{self._address} goes away: {payload[8:].decode(errors='replace')}")

    def _read_headers(self, payload: bytes, last: bool) -> None:
        try:
            found = dict(self._headers.decode(payload, raw=True))
        except hpack.HPACKError as error:
            raise _ProtocolError(f"headers: {error!r}") from error
        if last:
            status = int(found.get(b"grpc-status", b"2"))
            message = urllib.parse.unquote(found.get(b"grpc-message", b"").decode(errors="replace"))
            said = " ".join(message.split())[:300]
            self._ended = EndedError(_STATUS_NAMES.get(status, str(status)), said)


class _ProtocolError(ConnectionError):
    """The server speaks in a way that this client does not know."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        with contextlib.ExitStack() as unless_connected:
            made = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
            made.settimeout(_CONNECT_SECONDS)
            made.connect(address.removeprefix("unix:"))
            made.settimeout(None)
            unless_connected.pop_all()
            return made
    context = certificate.client_context(certificate.of_this_process())
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as unless_connected:
        plain = socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS)
        unless_connected.enter_context(plain)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _LOOK_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _LOOK_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _LOOKS)
        shown = context.wrap_socket(plain, server_hostname=certificate.NAME)
        shown.settimeout(None)
        unless_connected.pop_all()
        return shown


def _receiver(connection: socket.socket) -> Callable[[Sequence[memoryview]], int]:
    """What receives into the first place, or one place after the other, at least a byte.

    It raises a ConnectionResetError at the end.
    """

    def scattered(places: Sequence[memoryview]) -> int:
        return checked(connection.recvmsg_into(places)[0])

    def into_the_first(places: Sequence[memoryview]) -> int:
        return checked(connection.recv_into(places[0]))

    def checked(got: int) -> int:
        if not got:
            raise ConnectionResetError("the server has hung up")
        return got

    # TLS decrypts into one place.
    return into_the_first if hasattr(connection, "getpeercert") else scattered
