"""What the writer inserts, what it refuses, and how it ends while it is blocked."""

import threading
import time
from unittest import mock

import numpy as np
import pytest

from classact.replay import writer
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig
from classact.replay.records import RecordCodec
from classact.replay.server_calls import ReplayError

CONFIG = TableConfig(batch_size=4, samples_per_insert=0.5, capacity=64)


def test_only_what_is_kept_is_inserted(make_replay, batch_of):
    replay = make_replay(TableConfig(batch_size=1, samples_per_insert=0.5, capacity=4))
    out = replay.writer()
    keep = np.array([True, False, True, False])
    assert out.write(batch_of([5, 6, 7, 8]), np.array([1.0, np.nan, 2.0, np.nan]).__getitem__, keep) == 2
    out.flush()
    assert replay.statistics(EXAMPLES_TABLE)["inserts"] == 2
    assert replay.take(EXAMPLES_TABLE, 1)[0] in (5, 7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_priority_is_refused_and_the_table_lives(make_replay, batch_of, bad):
    replay = make_replay(TableConfig(batch_size=1, samples_per_insert=0.5, capacity=4))
    out = replay.writer()
    with pytest.raises(ValueError, match="priority"):
        out.write(batch_of([1, 2]), np.array([1.0, bad]).__getitem__, np.ones(2, bool))
    out.flush()
    assert replay.statistics(EXAMPLES_TABLE)["inserts"] == 0
    out.write(batch_of([3, 4]), np.ones(2).__getitem__, np.ones(2, bool))
    out.flush()
    assert sorted(replay.take(EXAMPLES_TABLE, 1)) in ([3], [4])


def test_a_batch_of_another_schema_inserts_nothing(make_replay, batch_of):
    replay = make_replay(CONFIG)
    out = replay.writer()
    with pytest.raises(ValueError, match="fields"):
        out.write({**batch_of([1]), "label": np.zeros(1)}, np.ones(1).__getitem__, np.ones(1, bool))
    assert replay.statistics(EXAMPLES_TABLE)["inserts"] == 0


def test_a_blocked_writer_returns_soon_after_stop(make_replay, batch_of):
    replay = make_replay(CONFIG)
    out = replay.writer()
    blocked = threading.Thread(
        target=lambda: out.write(batch_of(range(4000)), np.ones(4000).__getitem__, np.ones(4000, bool)),
        daemon=True,
    )
    blocked.start()
    # Nobody samples: the rate limiter stops the writer, and it stays stopped.
    blocked.join(1.5)
    assert blocked.is_alive()
    assert replay.statistics(EXAMPLES_TABLE)["inserts"] < 4000
    started = time.monotonic()
    replay.stop.set()
    blocked.join(10)
    assert not blocked.is_alive()
    out.close()
    assert time.monotonic() - started < 3


def test_both_tables_get_every_example(make_replay, batch_of):
    replay = make_replay(TableConfig(4, 0.5, 64, super_batch=16))
    out = replay.writer()
    out.write(batch_of(range(30)), np.linspace(0.5, 2, 30).__getitem__, np.ones(30, bool))
    out.flush()
    for table in (EXAMPLES_TABLE, STREAM_TABLE):
        assert replay.statistics(table)["inserts"] == 30
    assert replay.take(STREAM_TABLE, 10) == list(range(10))


def test_a_batch_of_which_nothing_is_kept_says_nothing_of_the_one_before(make_replay, batch_of):
    replay = make_replay(TableConfig(batch_size=4, samples_per_insert=0.5, capacity=1024))
    out = replay.writer()
    out.write(batch_of(range(400)), np.zeros(400).__getitem__, np.arange(400) < 200)
    assert out.max_pending == 50
    assert out.write(batch_of([1, 2]), np.zeros(2).__getitem__, np.zeros(2, bool)) == 0
    assert out.max_pending == 50


def test_what_the_limiter_holds_back_is_not_refused(monkeypatch, batch_of):
    """Of a server that dies twice, each time counts by itself, whatever was confirmed between."""
    seconds = iter([1.0, 1001.0])
    monkeypatch.setattr(writer, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(writer.time, "monotonic", seconds.__next__)
    monkeypatch.setattr(writer, "ServerCalls", mock.Mock())
    stream = mock.Mock()
    stream.wait.side_effect = [ReplayError("gone"), False, ReplayError("gone again"), True]
    stream.unconfirmed = unconfirmed = set()
    stream.send = lambda request, items: unconfirmed.update(items)
    stream.has_confirmed.return_value = True
    monkeypatch.setattr(writer, "InsertStream", lambda address: stream)
    codec = RecordCodec({name: batch_of([0])[name] for name in ("id", "image")})
    out = writer.ReplayWriter("unix:/nowhere", codec, [EXAMPLES_TABLE], threading.Event())
    assert out.write(batch_of([1]), np.zeros(1).__getitem__, np.ones(1, bool)) == 1
