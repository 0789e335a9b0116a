"""A replay server that is asked from another host: by the run's own clients, and nobody else's."""

import contextlib
import threading
import time

import numpy as np
import pytest
import replay_servers

from classact.calls import Keys, keys
from classact.replay import certificate, gate, records, sample_stream, server_calls, writer
from classact.replay.config import EXAMPLES_TABLE, TableConfig

# More than a record of TLS.
RECORD_BYTES = 40_000
CODEC = records.RecordCodec({"image": np.zeros((1, RECORD_BYTES - 12), np.uint8)})


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


def test_the_runs_own_reader_gets_what_its_writer_gave(opened):
    codec, rows = (
        CODEC,
        CODEC.taken_apart(np.random.default_rng(0).integers(0, 256, (40, RECORD_BYTES), np.uint8)),
    )
    written = {**codec.unpack(rows), "score": np.arange(40, dtype=np.float32)}
    out = writer.ReplayWriter(opened.address, codec, [EXAMPLES_TABLE], threading.Event())
    stream = sample_stream.SampleStream(opened.address, EXAMPLES_TABLE, 20.0)
    with contextlib.closing(out), contextlib.closing(stream):
        out.write(written, lambda indices: 1.0 * indices, np.ones(40, bool))
        read = codec.empty(4)
        for _ in range(2):
            taken = sum(len(priorities) for priorities in stream.take(read))
            assert taken == 4
    # The second four.
    np.testing.assert_array_equal(read.largest, rows.largest[4:8])
    np.testing.assert_array_equal(codec.unpack(read)["score"], [4, 5, 6, 7])


def test_a_client_of_another_run_is_not(opened, told):
    told("other.json")
    with pytest.raises(server_calls.ReplayError, match=opened.address):
        list(sample_stream.SampleStream(opened.address, EXAMPLES_TABLE, 1.0).take(CODEC.empty(1)))
    with pytest.raises(server_calls.ReplayError, match=opened.address):
        server_calls.ServerCalls(opened.address).tables(timeout=5)
    deadline = time.monotonic() + 10
    while not opened.refused:  # It is counted when the gate hears what the client thinks of it.
        assert time.monotonic() < deadline


def test_without_keys_nobody_is_asked_over_tcp(monkeypatch):
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    with pytest.raises(ValueError, match="CLASSACT_KEYS is not set"):
        server_calls.ServerCalls("192.0.2.1:20000")
