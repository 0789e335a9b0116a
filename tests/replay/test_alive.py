import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import replay_servers

from classact.replay import alive, config

SOON = 20.0
TABLES = config.TableConfig(batch_size=2, samples_per_insert=0.5, capacity=10)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(alive, "_ANSWER_SECONDS", 0.5)


def test_a_server_that_is_stopped_is_not_alive(monkeypatch, quick):
    with replay_servers.serving(TABLES, 16) as server:
        asks = alive.Alive(server.address, server.process.pid)
        assert asks()
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            # Answers may be on their way, and what it computed up to now counts once. On a busy
            # machine the signal itself takes its time.
            deadline = time.monotonic() + SOON
            while asks():
                assert time.monotonic() < deadline
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        monkeypatch.setattr(alive, "_ANSWER_SECONDS", 10.0)
        assert asks()


@pytest.mark.parametrize(("code", "expected"), [("while True: pass", True), ("input()", False)])
def test_one_that_does_not_answer_is_alive_while_it_computes(tmp_path, quick, code, expected):
    # Takes calls, and never answers.
    deaf = socket.socket(socket.AF_UNIX)
    deaf.bind(str(tmp_path / "deaf"))
    deaf.listen()
    with (
        deaf,
        subprocess.Popen(
            [sys.executable, "-c", f"print(flush=True)\n{code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        try:
            assert process.stdout.readline()
            asks = alive.Alive(f"unix:{tmp_path / 'deaf'}", process.pid)
            asks()
            assert asks() is expected
        finally:
            process.kill()


def test_a_process_that_is_gone_is_not_alive(tmp_path, quick):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not alive.Alive(f"unix:{tmp_path / 'nobody'}", process.pid)()
