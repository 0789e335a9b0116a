"""The server as a child: what it says at its end, and that it has one."""

import ast
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest
import replay_servers

from classact.replay import server_calls, server_process, server_program
from classact.replay.config import EXAMPLES_TABLE, TableConfig

CONFIG = TableConfig(batch_size=4, samples_per_insert=0.5, capacity=64)
PROGRAMS = [
    pathlib.Path(server_process.__file__).with_name(name)
    for name in ("server_program.py", "unix_listener.py")
]


@pytest.fixture
def server():
    with replay_servers.serving(CONFIG, 100) as made:
        yield made


def gone(pid):
    """Whether a process ends within a while; a zombie has."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if ") Z" in pathlib.Path(f"/proc/{pid}/stat").read_text():
                return True
        except OSError:
            return True
    return False


def test_it_serves_what_it_is_told(server):
    calls = server_calls.ServerCalls(server.address)
    (table,) = calls.tables().values()
    calls.close()
    assert (table.name, table.max_size, table.max_times_sampled) == (EXAMPLES_TABLE, 64, 1)
    limiter = table.limiter
    assert (limiter.samples_per_insert, limiter.min_size_to_sample) == (0.5, 32)
    assert (limiter.min_diff, limiter.max_diff) == (8, 24)
    assert [dim.size for dim in table.signature.tensor_spec.shape.dim] == [100]


def test_it_stops_when_it_is_asked_and_soon_though_clients_are_there(server):
    calls = server_calls.ServerCalls(server.address)
    calls.tables()
    stop, began = threading.Event(), time.monotonic()
    stop.set()
    server.process.run(stop)
    calls.close()
    assert time.monotonic() - began < 5
    assert gone(server.process.pid)


def test_its_death_is_told(server):
    os.kill(server.process.pid, signal.SIGKILL)
    with pytest.raises(server_process.ReplayServerError, match=r"ended with signal 9"):
        server.process.run(threading.Event())


def test_why_it_does_not_begin_is_told(tmp_path):
    without_reverb = pathlib.Path(sys.executable)
    with pytest.raises(server_process.ReplayServerError, match=r"status 1:\n(?s:.*)is not installed in"):
        replay_servers.Server(CONFIG, 100, tmp_path / "socket", tmp_path / "tables", without_reverb)
    too_long = tmp_path / ("long" * 30)
    with pytest.raises(server_process.ReplayServerError, match="at most 107 bytes"):
        replay_servers.Server(CONFIG, 100, too_long, tmp_path / "tables")


def test_signals_to_a_whole_job_do_not_end_it(server):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(server.process.pid, number)
    calls = server_calls.ServerCalls(server.address)
    assert list(calls.tables()) == [EXAMPLES_TABLE]
    calls.close()


_PARENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
import replay_servers
from classact.replay.config import TableConfig
served = replay_servers.serving(TableConfig(4, 0.5, 64), 100)
pid = served.__enter__().process.pid
if os.fork():
    print(pid, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_it_dies_with_its_parent_however_that_dies(stopped):
    """Also if it cannot look at its standard input, which another child of the parent holds open."""
    tests = pathlib.Path(replay_servers.__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tests)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        try:
            if stopped:
                os.kill(pid, signal.SIGSTOP)
            parent.kill()
            assert gone(pid)
        finally:
            # Lets the other child go.
            parent.stdin.close()


def test_its_program_imports_nothing_of_ours_nor_tensorflow():
    for file in PROGRAMS:
        named = set()
        for node in ast.walk(ast.parse(file.read_text(), feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                named |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named.add((node.module or "").partition(".")[0])
        assert named - set(sys.stdlib_module_names) <= {"numpy"}


def test_what_takes_it_off_the_network_is_there_before_it_listens(monkeypatch):
    done = []
    reverb, listener = mock.MagicMock(), mock.Mock()
    reverb.Server.side_effect = lambda *_: done.append("listens")
    listener.move.side_effect = lambda _: done.append("moves")
    monkeypatch.setattr(server_program.signal, "signal", mock.Mock())
    monkeypatch.setattr(server_program, "_die_with", mock.Mock())
    monkeypatch.setattr(server_program, "load_reverb", lambda: reverb)
    monkeypatch.setattr(server_program, "_module", lambda name, _: done.append(name) or listener)
    monkeypatch.setattr(server_program, "_serve_until_asked", mock.Mock())
    server_program.main('{"parent": 1, "tables": [], "socket": "s", "written": "w", "loaded": null}')
    assert done == ["unix_listener", "listens", "moves"]


def test_nobody_answers_at_a_socket_whose_server_is_gone(server):
    server.process.kill()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(server.address.removeprefix("unix:"))
    calls = server_calls.ServerCalls(server.address)
    with pytest.raises(server_calls.ReplayError, match="UNAVAILABLE"):
        calls.tables()
    calls.close()
