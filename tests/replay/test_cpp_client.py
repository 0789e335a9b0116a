"""Ours writes and Reverb's C++ client reads, and the reverse; with both versions of Reverb."""

import hashlib
import json
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
import replay_servers

from classact import environments
from classact.replay import dataset, records, sample_stream, writer
from classact.replay.config import EXAMPLES_TABLE, TableConfig

SCRIPT = pathlib.Path(__file__).with_name("reverb_cpp_client.py")
# Half of it has to be there for a sample.
CONFIG = TableConfig(batch_size=2, samples_per_insert=0.5, capacity=12)
WRITTEN, READ = 10, 5
OLDER = pathlib.Path(sys.prefix) / "classact" / "replay-0.7" / "bin" / "python"


@pytest.fixture(params=["0.14.0", "0.7.2"])
def python(request):
    if request.param == "0.14.0":
        return environments.replay_python()
    if not OLDER.exists():
        pytest.skip(f"Reverb 0.7.2 is not at {OLDER}: `make older-server` installs it")
    return OLDER


def run(python, role, server, size, count):
    done = subprocess.run(
        [str(python), "-I", str(SCRIPT), role, server.address, EXAMPLES_TABLE, str(size), str(count)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def statistics(server):
    return dataset.TableStatistics([server.address], EXAMPLES_TABLE)()


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_the_other_one_reads_what_ours_wrote(python, compression):
    codec = records.RecordCodec({"a": np.zeros((1, 500), np.uint8)})
    batch = {
        "a": np.random.default_rng(0).integers(0, 9, (WRITTEN, 500), np.uint8),
        "score": np.zeros(WRITTEN, np.float32),
        "scored_step": np.zeros(WRITTEN, np.int64),
    }
    priorities = np.linspace(3.0, -3.0, WRITTEN)
    with replay_servers.serving(CONFIG, codec.num_bytes, python=python) as server:
        out = writer.ReplayWriter(
            server.address, codec, CONFIG.table_names, threading.Event(), compression=compression
        )
        out.write(batch, priorities.__getitem__, np.ones(WRITTEN, bool))
        out.flush()
        out.close()
        found = run(python, "read", server, codec.num_bytes, READ)
    rows = codec.pack(batch)
    smallest_first = range(WRITTEN - 1, WRITTEN - 1 - READ, -1)
    assert found == [
        [int(rows[i][0]), priorities[i], hashlib.sha256(rows[i][1:].tobytes()).hexdigest()]
        for i in smallest_first
    ]


def test_ours_reads_what_the_other_one_wrote(python):
    size = 2000
    with replay_servers.serving(CONFIG, size, python=python) as server:
        run(python, "write", server, size, WRITTEN)
        assert statistics(server)["inserts"] == WRITTEN
        stream = sample_stream.SampleStream(server.address, EXAMPLES_TABLE, 20.0)
        # With the twelve bytes of a score and its step.
        records_read = records.RecordCodec({"a": np.zeros((1, size - 12), np.uint8)}).empty(READ)
        priorities = np.concatenate(list(stream.take(records_read)))
        stream.close()
    rows = records_read.packed()
    np.testing.assert_array_equal(priorities, np.arange(READ))
    np.testing.assert_array_equal(rows[:, 0], np.arange(READ))
    np.testing.assert_array_equal(rows[:, 1:], np.repeat(np.arange(READ)[:, None] % 3, size - 1, axis=1))
