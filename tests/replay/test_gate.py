"""The way in from other hosts: for who has the run's key."""

import contextlib
import logging
import pathlib
import socket
import socketserver
import ssl
import threading
import time
from concurrent import futures

import grpc
import pytest

from classact.replay import certificate, gate

MINE = certificate.identity(b"m" * 32)
OTHER = certificate.identity(b"o" * 32)


@pytest.fixture
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("s") / "behind.sock"


@pytest.fixture
def opened(path):
    with contextlib.closing(gate.Gate("127.0.0.1:0", path, MINE)) as opened:
        yield opened


@pytest.fixture
def echo(path):
    """Answers with what it is told, and hangs up when told "bye"."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            while (some := self.request.recv(1 << 16)) not in (b"", b"bye"):
                self.request.sendall(some)

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def port_of(opened):
    return int(opened.address.rpartition(":")[2])


def connected(opened, identity, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=MINE.certificate.decode())
    if identity is not None:
        file = tmp_path / "mine.pem"
        file.write_bytes(identity.certificate + identity.key)
        context.load_cert_chain(file)
    plain = socket.create_connection(("127.0.0.1", port_of(opened)), timeout=20)
    return context.wrap_socket(plain, server_hostname=certificate.NAME)


def received(connection, size):
    parts = []
    while size:
        parts.append(connection.recv(size))
        if not parts[-1]:
            break
        size -= len(parts[-1])
    return b"".join(parts)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bytes_pass_both_ways_at_once(opened, echo, tmp_path):
    sent = bytes(range(256)) * (1 << 14)  # 4 MB, more than may wait on the way.
    with connected(opened, MINE, tmp_path) as connection:
        sending = threading.Thread(target=connection.sendall, args=(sent[: 1 << 20],))
        sending.start()
        sending.join()
        assert received(connection, 1 << 20) == sent[: 1 << 20]
        connection.sendall(b"bye")
        assert connection.recv(1) == b""
    assert opened.refused == 0


def test_grpc_passes(opened, path, tmp_path):
    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.stream_stream_rpc_method_handler(lambda messages, _: (m[::-1] for m in messages))

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Handler()])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    shown = grpc.ssl_channel_credentials(MINE.certificate, MINE.key, MINE.certificate)
    options = [("grpc.ssl_target_name_override", certificate.NAME)]
    try:
        with grpc.secure_channel(opened.address, shown, options) as channel:
            messages = [bytes([number]) + bytes(1 << 20) for number in range(5)]
            answers = channel.stream_stream("/any/method")(iter(messages), timeout=30)
            assert list(answers) == [message[::-1] for message in messages]
    finally:
        server.stop(None)


@pytest.mark.parametrize("identity", [None, OTHER], ids=["no certificate", "another run's"])
def test_who_has_not_the_key_is_refused_counted_and_logged(opened, echo, identity, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    # A client learns of it when it reads: its own greeting is over before the server has judged it.
    with connected(opened, identity, tmp_path) as connection, contextlib.suppress(OSError):
        connection.sendall(b"hello")
        assert connection.recv(5) == b""
    wait_for(lambda: opened.refused == 1)
    wait_for(lambda: "refused a connection from 127.0.0.1 without this run's key (1 so far)" in caplog.text)
    with connected(opened, MINE, tmp_path) as connection:
        connection.sendall(b"hello")
        assert received(connection, 5) == b"hello"


def test_who_speaks_something_else_is_refused(opened, echo):
    with socket.create_connection(("127.0.0.1", port_of(opened)), timeout=20) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * 10)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1000):
                pass
    wait_for(lambda: opened.refused == 1)


def test_a_server_that_comes_later_is_found(opened, path, tmp_path, request):
    with connected(opened, MINE, tmp_path) as connection:
        assert connection.recv(1) == b""
    request.getfixturevalue("echo")
    with connected(opened, MINE, tmp_path) as connection:
        connection.sendall(b"hello")
        assert received(connection, 5) == b"hello"
    assert opened.refused == 0


def test_it_outlives_that_there_are_no_more_threads(opened, echo, tmp_path, monkeypatch, caplog):
    starts = threading.Thread.start
    tries = iter([False])

    def start(thread):
        if thread.name.startswith("Thread-") and not next(tries, True):
            raise RuntimeError("can't start new thread")
        starts(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError):
        connected(opened, MINE, tmp_path)
    with connected(opened, MINE, tmp_path) as connection:
        connection.sendall(b"hello")
        assert received(connection, 5) == b"hello"
    assert "no thread for a connection" in caplog.text


def test_closing_ends_all(opened, echo, tmp_path):
    with connected(opened, MINE, tmp_path) as connection:
        connection.sendall(b"hello")
        assert received(connection, 5) == b"hello"
        opened.close()
        with contextlib.suppress(OSError):
            assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(opened)), timeout=20)
    opened.close()


def test_a_taken_port_is_an_error(opened):
    with pytest.raises(OSError, match="in use"):
        gate.Gate(opened.address, pathlib.Path("/x"), MINE)


@pytest.mark.parametrize("host", ["localhost", "192.0.2.1"], ids=["a name", "not this machine's"])
def test_listens_on_all_interfaces_where_it_must(path, echo, host, tmp_path):
    with contextlib.closing(gate.Gate(f"{host}:0", path, MINE)) as opened:
        assert opened.address == f"{host}:{port_of(opened)}" != f"{host}:0"
        with connected(opened, MINE, tmp_path) as connection:
            connection.sendall(b"hello")
            assert received(connection, 5) == b"hello"
