"""The replay's server at a Unix socket: reachable there, and nowhere else."""

import contextlib
import pathlib
import stat
import subprocess
import sys

import grpc
import psutil
import pytest

from classact import environments
from classact.replay import unix_listener

# The real server, as the program starts it.
REVERB = """
import reverb, tempfile
table = reverb.Table.queue("examples", 10)
checkpointer = reverb.checkpointers.DefaultCheckpointer(tempfile.mkdtemp())
server = reverb.Server([table], port=0, checkpointer=checkpointer)
"""
# Any server that waits by epoll for connections, with a note of its own beside the number.
PLAIN = """
import ctypes, select, socket
server = socket.create_server(("::", 0), family=socket.AF_INET6)
epoll = select.epoll()
epoll.register(server, select.EPOLLIN | select.EPOLLET)
"""
MOVE = """
import importlib.util, pathlib, sys
found = importlib.util.spec_from_file_location("unix_listener", sys.argv[1])
unix_listener = importlib.util.module_from_spec(found)
found.loader.exec_module(unix_listener)
try:
    unix_listener.move(pathlib.Path(sys.argv[2]))
except unix_listener.ListenerError as error:
    sys.exit(f"refused: {error}")
print("ready", flush=True)
"""


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("s")  # Short: a socket's path has 107 bytes.


@contextlib.contextmanager
def moved(program, path, python=sys.executable):
    command = [python, "-I", "-c", program, unix_listener.__file__, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def refused(program, path):
    command = [sys.executable, "-I", "-c", program, unix_listener.__file__, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr.removeprefix("refused: ").strip()


def server_info(channel):
    call = channel.unary_unary("/deepmind.reverb.ReverbService/ServerInfo")
    return call(b"", timeout=30, wait_for_ready=True)


def test_the_server_is_at_the_unix_socket_alone(folder):
    path = folder / "replay.sock"
    python = environments.replay_python()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        with moved(REVERB + MOVE + "sys.stdin.read()", path, python) as process:
            assert b"examples" in server_info(channel)
            assert psutil.Process(process.pid).net_connections("inet") == []
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        # Killed, it leaves the file behind; the next one takes its place, and callers find it.
        assert path.exists()
        with moved(REVERB + MOVE + "sys.stdin.read()", path, python):
            assert b"examples" in server_info(channel)


def test_whoever_waits_by_epoll_is_told_of_connections_under_the_number_it_knows(folder):
    path = folder / "plain.sock"
    wait = """
        import socket
        client = socket.socket(socket.AF_UNIX)
        client.connect(sys.argv[2])
        [(number, events)] = epoll.poll(10)
        assert number == server.fileno() and events == select.EPOLLIN, (number, events)
        accepted, _ = socket.socket(fileno=number).accept()
        client.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        print("heard", flush=True)
    """
    program = PLAIN + MOVE + "\n".join(line.strip() for line in wait.splitlines())
    with moved(program, path) as process:
        assert process.stdout.readline() == "heard\n"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("", "no socket of this process listens at a port"),
        ("import socket\nserver = socket.create_server(('127.0.0.1', 0))\n", "epoll watches only some"),
        (
            PLAIN + "client = socket.create_connection(('::1', server.getsockname()[1]))\n",
            "still has sockets of the network",
        ),
    ],
    ids=["no server", "not by epoll", "somebody came by the port"],
)
def test_a_server_that_is_not_as_expected_does_not_serve(folder, program, why):
    assert why in refused(program + MOVE, folder / "x.sock")


def test_a_bad_path_is_said(folder):
    assert "at most 107 bytes" in refused(PLAIN + MOVE, folder / ("long" * 30))
    assert "No such file or directory" in refused(PLAIN + MOVE, folder / "missing" / "x.sock")


def test_the_path_may_be_as_long_as_it_is_said(folder):
    path = pathlib.Path(f"{folder}/{'l' * (106 - len(str(folder)))}")
    with moved(PLAIN + MOVE + "sys.stdin.read()", path):
        assert path.is_socket()


def test_this_kernel_tells_what_it_takes():
    assert unix_listener.is_possible()
