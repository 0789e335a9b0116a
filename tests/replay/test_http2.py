"""What arrives in frames of any size is the same stream of bytes, wherever it is read into."""

import contextlib
import socket
import threading

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.replay import http2

SECONDS = 20.0
DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
FIRST_STREAM = 1


def frame(kind, payload=b"", flags=0, stream=FIRST_STREAM):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def trailers(status=b"0", message=b""):
    fields = [(b"grpc-status", status), (b"grpc-message", message)]
    return frame(HEADERS, hpack.Encoder().encode(fields), flags=0x1 | 0x4)


class Server:
    """Says what it is told, whatever it is asked, and keeps what it heard."""

    def __init__(self, path):
        self.address = f"unix:{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    @contextlib.contextmanager
    def saying(self, said, pieces=(1 << 16,)):
        """A connection with a call under way, answered in pieces of these sizes, in turns."""
        made = http2.Connection(self.address)
        made.call("/service/Method", b"request")
        self.peer, _ = self._listener.accept()

        def say():
            rest, turn = said, 0
            while rest:
                size = pieces[turn % len(pieces)]
                self.peer.sendall(rest[:size])
                rest, turn = rest[size:], turn + 1

        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.close()
            thread.join(SECONDS)
            with self.peer:
                self.heard = self._hear()

    def _hear(self):
        """The frames that the client has sent before it hung up: kind, flags, payload."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.peer.recv(1 << 16):
                data += more
        data = data.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        found = []
        while data:
            size = int.from_bytes(data[:3])
            found.append((data[3], data[4], data[9 : 9 + size]))
            data = data[9 + size :]
        return found

    def close(self):
        self._listener.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with contextlib.closing(Server(tmp_path_factory.mktemp("http2") / "socket")) as made:
        yield made


CONTROL = st.sampled_from(
    [
        frame(PING, b"eight by", stream=0),
        frame(SETTINGS, b"\x00\x03\x00\x00\x00\x64", stream=0),
        frame(WINDOW, b"\x00\x00\x10\x00", stream=0),
        frame(HEADERS, hpack.Encoder().encode([(b":status", b"200")]), flags=0x4),
        frame(0xA, b"a kind that nobody knows"),
        frame(DATA),
    ]
)
SIZES = st.integers(1, 40_000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(SIZES, st.lists(CONTROL, max_size=2)), min_size=1, max_size=6),
    st.lists(SIZES, min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(("peek", "read")), SIZES), min_size=1, max_size=4),
)
def test_bytes_are_the_same_in_whatever_frames_and_pieces_they_come(server, frames, pieces, plan):
    whole = bytes(index * 37 % 251 for index in range(sum(size for size, _ in frames)))
    said, at = b"", 0
    for size, others in frames:
        said += b"".join(others) + frame(DATA, whole[at : at + size])
        at += size
    found = b""
    with server.saying(said + trailers(), pieces) as connection:
        turn = 0
        while len(found) < len(whole):
            how, size = plan[turn % len(plan)]
            size, turn = min(size, len(whole) - len(found)), turn + 1
            if how == "peek":
                size = min(size, 16_384)
                shown = bytes(connection.peek(size))
                assert bytes(connection.peek(size)) == shown and len(shown) == size
                connection.skip(size)
                found += shown
            else:
                place = bytearray(size)
                connection.read_into(memoryview(place))
                found += place
        assert found == whole
        with pytest.raises(http2.EndedError, match=r"^OK$"):
            connection.peek(1)


def test_pings_and_settings_are_answered_and_windows_opened_again(server, monkeypatch):
    monkeypatch.setattr(http2, "_OPEN_AGAIN", 1000)
    said = frame(PING, b"12345678", stream=0) + frame(SETTINGS, stream=0) + 3 * frame(DATA, bytes(600))
    with server.saying(said + trailers()) as connection:
        connection.read_into(memoryview(bytearray(1800)))
        with pytest.raises(http2.EndedError):
            connection.peek(1)
    assert (PING, 1, b"12345678") in server.heard and (SETTINGS, 1, b"") in server.heard
    # After its settings: the connection's window, and the stream's.
    opened = [int.from_bytes(payload) for kind, _, payload in server.heard if kind == WINDOW]
    assert opened[1:] == [1200, 1200]


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (trailers(b"5", b"no%20table\nhere"), "^NOT_FOUND: no table here$"),
        (trailers(b"77"), "^77$"),
        (frame(RESET, b"\x00\x00\x00\x08"), "^CANCELLED: the stream was reset, error 8$"),
    ],
)
def test_how_a_call_ended_is_told(server, said, match):
    with server.saying(frame(DATA, b"abc") + said) as connection:
        assert bytes(connection.peek(10)) == b"abc"
        connection.skip(3)
        with pytest.raises(http2.EndedError, match=match):
            connection.read_into(memoryview(bytearray(1)))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (frame(GO_AWAY, bytes(8) + b"enough", stream=0), "goes away: enough"),
        (frame(DATA, b"\x01a\x00", flags=0x8), "padded"),
        (frame(HEADERS, b"", flags=0x1), "in pieces"),
        (frame(HEADERS, b"\xff\xff\xff\xff\xff\xff\xff\xff", flags=0x4), "headers: "),
        ((1 << 20).to_bytes(3) + bytes([HEADERS, 4]) + FIRST_STREAM.to_bytes(4) + bytes(1 << 17), "too long"),
    ],
)
def test_what_it_does_not_know_is_a_broken_connection(server, said, match):
    with server.saying(said) as connection, pytest.raises(ConnectionError, match=match):
        connection.peek(1)


def test_a_server_that_hangs_up_in_a_message_is_heard(server):
    with server.saying(frame(DATA, b"abc")) as connection:
        connection.skip(len(connection.peek(1)))
        server.peer.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError, match="hung up"):
            connection.read_into(memoryview(bytearray(10)))


def test_closing_ends_the_wait_of_another_thread(server):
    ended = threading.Event()
    with server.saying(b"") as connection:

        def wait():
            with contextlib.suppress(OSError):
                connection.peek(1)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        connection.close()
        assert ended.wait(SECONDS)


def test_where_nobody_listens_it_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        http2.Connection(f"unix:{tmp_path}/nobody")
