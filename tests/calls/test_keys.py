"""Over TCP only callers with the run's keys are let in; others are counted and logged."""

import logging
import socket

import pytest

from classact import calls
from classact.calls import Keys, keys
from classact.launch.engines.ports import LoopbackPorts

SOON = 10.0


@pytest.fixture
def address():
    with LoopbackPorts() as ports:
        yield f"127.0.0.1:{ports()}"


@pytest.fixture(scope="module")
def own():
    return Keys.make()


@pytest.fixture
def server(address, own):
    server = calls.Server(address, {"get": lambda: 7}, own)
    server.start()
    yield server
    server.stop()


def until_refused(server, count):
    """Waits for the server to have counted that many; with a deadline."""
    seen = calls.Client(server.address, server._keys, timeout=SOON)
    for _ in range(1000):
        # Each answer gives the server's thread a turn.
        assert seen.call("get") == 7
        if server.refused >= count:
            return
    raise AssertionError(f"{server.refused} were refused")


def test_who_has_the_keys_is_answered(server, own):
    assert calls.Client(server.address, own, timeout=SOON).call("get") == 7
    assert server.refused == 0


def test_another_caller_is_refused_counted_and_logged(server, own, caplog):
    other = Keys.make()
    mixed = Keys(own.server, other.server_secret, other.caller, other.caller_secret)
    with caplog.at_level(logging.WARNING):
        with pytest.raises(calls.RefusedError, match="does not take this caller's keys"):
            calls.Client(server.address, mixed, timeout=SOON).call("get")
        until_refused(server, 1)
        server.stop()
    line, last = (record.getMessage() for record in caplog.records)
    assert last == f"calls at {server.address}: refusals in all: {server.refused}"
    assert f"calls at {server.address}: refused a caller from 127.0.0.1 without this run's keys" in line


def test_a_caller_of_another_run_is_refused(server):
    with pytest.raises(calls.RefusedError, match="of another run, with other keys"):
        calls.Client(server.address, Keys.make(), timeout=SOON).call("get")
    until_refused(server, 1)


def test_a_caller_without_keys_is_refused(server):
    with pytest.raises(calls.CallError):
        calls.Client(server.address, timeout=1.0, open_to_all=True).call("get")
    until_refused(server, 1)


def test_a_caller_who_knows_the_public_keys_alone_is_refused(server, own):
    other = Keys.make()
    public = Keys(own.server, other.server_secret, own.caller, other.caller_secret)
    with pytest.raises(calls.CallError):
        calls.Client(server.address, public, timeout=1.0).call("get")


def test_whoever_scans_ports_is_counted(server, own):
    host, port = server.address.split(":")
    for _ in range(3):
        socket.create_connection((host, int(port)), timeout=5).close()
    until_refused(server, 3)


def test_a_greeting_is_no_refused_caller(server, own):
    assert calls.Client(server.address, own).greets(SOON)
    assert not calls.Client(server.address, Keys.make()).greets(SOON)
    until_refused(server, 1)


def test_a_call_is_made_again_over_tcp_too(address, own):
    client = calls.Client(address, own, timeout=SOON)
    for number in (1, 2):
        server = calls.Server(address, {"get": lambda number=number: number}, own)
        server.start()
        assert client.call("get") == number
        server.stop()


def test_nobody_serves_or_calls_over_tcp_without_keys(address):
    with pytest.raises(ValueError, match="needs keys"):
        calls.Server(address, {})
    with pytest.raises(ValueError, match="takes the keys"):
        calls.Client(address)


def test_an_address_of_another_machine_is_listened_to_on_all_interfaces(address, own):
    # 192.0.2.1 is nobody's (RFC 5737), as the address of a gateway would be.
    port = address.split(":")[1]
    server = calls.Server(f"192.0.2.1:{port}", {"get": lambda: 7}, own)
    server.start()
    assert calls.Client(address, own, timeout=SOON).call("get") == 7
    server.stop()


def test_a_port_in_use_is_an_error(server, own):
    with pytest.raises(OSError, match=r"cannot listen at tcp://127.0.0.1"):
        calls.Server(server.address, {}, own).start()


def test_keys_are_kept_for_this_user_alone(tmp_path, own):
    path = tmp_path / keys.FILE_NAME
    path.write_text("what was there before")
    path.chmod(0o666)
    own.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keys.load(path) == own
    assert [found.name for found in tmp_path.iterdir()] == [keys.FILE_NAME]


def test_secrets_are_not_printed(own):
    assert own.server_secret not in repr(own)
    assert own.caller_secret not in repr(own)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"server": "x"}', "[" * 100_000])
def test_a_file_without_keys_is_named(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ValueError, match=r"keys\.json|key server"):
        Keys.load(path)


def test_the_environment_names_the_keys(tmp_path, own, monkeypatch):
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    assert keys.of_this_process() is None
    own.save(tmp_path / "k")
    monkeypatch.setenv(keys.VARIABLE, str(tmp_path / "k"))
    assert keys.of_this_process() == own
