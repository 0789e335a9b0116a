"""A replay server that is asked from another host: by the run's own clients, and nobody else's."""

import contextlib
import time

import pytest
import replay_servers

from classact.calls import Keys, keys
from classact.replay import certificate, gate, server_calls
from classact.replay.config import EXAMPLES_TABLE, TableConfig

RECORD_BYTES = 64


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Tells this process of new keys."""

    def tell(name):
        Keys.make().save(tmp_path / name)
        monkeypatch.setenv(keys.VARIABLE, str(tmp_path / name))

    return tell


@pytest.fixture
def opened(told):
    """A gate in front of a server, with the keys of this process's run."""
    told("mine.json")
    with replay_servers.serving(TableConfig(4, 0.5, 64), RECORD_BYTES) as server:
        path = server.spec.socket
        with contextlib.closing(gate.Gate("127.0.0.1:0", path, certificate.of_this_process())) as opened:
            yield opened


def test_the_runs_own_client_is_answered(opened):
    calls = server_calls.ServerCalls(opened.address)
    calls.check_schema([EXAMPLES_TABLE], RECORD_BYTES, timeout=30)
    with pytest.raises(server_calls.SchemaError, match=str(RECORD_BYTES + 1)):
        calls.check_schema([EXAMPLES_TABLE], RECORD_BYTES + 1, timeout=30)
    assert opened.refused == 0


def test_a_client_of_another_run_is_not(opened, told):
    told("other.json")
    with pytest.raises(server_calls.ReplayError, match=opened.address):
        server_calls.ServerCalls(opened.address).tables(timeout=5)
    deadline = time.monotonic() + 10
    while not opened.refused:  # It is counted when the gate hears what the client thinks of it.
        assert time.monotonic() < deadline


def test_without_keys_nobody_is_asked_over_tcp(monkeypatch):
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    with pytest.raises(ValueError, match="CLASSACT_KEYS is not set"):
        server_calls.ServerCalls("192.0.2.1:20000")
