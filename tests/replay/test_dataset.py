"""What the learner reads: whole batches, nothing twice, nothing lost."""

import socket
import threading
import time

import numpy as np
import pytest

from classact.replay import dataset, shard_reader
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig
from classact.replay.records import RecordCodec


def test_batches_have_their_size_and_their_fields(make_replay, write_all):
    replay = make_replay(TableConfig(batch_size=8, samples_per_insert=1.0, capacity=64))
    write_all(replay, np.arange(250, 266))
    batch = replay.dataset(EXAMPLES_TABLE).next(timeout=20)
    assert set(batch) == {"id", "image", "score", "scored_step"}
    np.testing.assert_array_equal(batch["id"], np.arange(250, 258))
    np.testing.assert_array_equal(batch["image"][:, 0, 1, 0], batch["id"] % 256)


def test_a_batch_that_does_not_come_is_a_time_out(make_replay):
    replay = make_replay(TableConfig(batch_size=8, samples_per_insert=1.0, capacity=64))
    reader = replay.dataset(EXAMPLES_TABLE)
    started = time.monotonic()
    with pytest.raises(dataset.ReplayTimeoutError, match=r"'examples'.*0\.2 s"):
        reader.next(timeout=0.2)
    assert time.monotonic() - started < 2


def test_nothing_is_lost_across_a_samplers_time_out(make_replay, write_all, monkeypatch):
    monkeypatch.setattr(shard_reader, "SAMPLE_SECONDS", 0.3)
    replay = make_replay(TableConfig(batch_size=8, samples_per_insert=1.0, capacity=64))
    reader = replay.dataset(EXAMPLES_TABLE)
    write_all(replay, np.arange(11))
    found = [reader.next(timeout=20)["id"]]
    # Three of a batch are there; the sampler gives up several times meanwhile.
    with pytest.raises(dataset.ReplayTimeoutError):
        reader.next(timeout=1.5)
    write_all(replay, np.arange(11, 24))
    found += [reader.next(timeout=20)["id"] for _ in range(2)]
    np.testing.assert_array_equal(np.concatenate(found), np.arange(24))


def test_the_transfer_runs_in_the_reading_thread_and_is_a_part_of_the_draw(
    make_replay, write_all, monkeypatch
):
    replay = make_replay(TableConfig(batch_size=4, samples_per_insert=1.0, capacity=64))
    write_all(replay, np.arange(4))
    seconds = []
    monkeypatch.setattr(dataset.pace.Pace, "drawn", lambda _, taken: seconds.append(taken))

    def transfer(batch):
        time.sleep(0.1)
        return threading.current_thread().name, batch["id"].sum()

    reader = replay.dataset(EXAMPLES_TABLE, transfer=transfer)
    assert reader.next(timeout=20) == ("replay reader examples", 6)
    assert seconds[0] >= 0.1


def test_a_failing_transfer_reaches_the_caller(make_replay, write_all):
    replay = make_replay(TableConfig(batch_size=4, samples_per_insert=1.0, capacity=64))
    write_all(replay, np.arange(4))

    def fail(batch):
        raise ValueError("no room on the device")

    reader = replay.dataset(EXAMPLES_TABLE, transfer=fail)
    with pytest.raises(RuntimeError, match=r"'examples'.*failed") as caught:
        reader.next(timeout=20)
    assert "no room" in str(caught.value.__cause__)


def test_whatever_ends_a_reading_thread_reaches_the_caller(monkeypatch):
    def no_file(address):
        raise OSError("the run's keys cannot be read")

    monkeypatch.setattr(shard_reader, "ServerCalls", no_file)
    reader = dataset.ReplayDataset(["unix:/nowhere"], EXAMPLES_TABLE, RecordCodec({}), 4, threading.Event())
    with pytest.raises(RuntimeError, match=r"'examples'.*failed") as caught:
        reader.next(timeout=20)
    assert "keys" in str(caught.value.__cause__)


def test_the_stream_has_everything_in_order_and_the_examples_a_share(make_replay, feed):
    replay = make_replay(TableConfig(batch_size=16, samples_per_insert=0.5, capacity=128, super_batch=64))
    feed(replay)
    stream, examples = replay.dataset(STREAM_TABLE, 32), replay.dataset(EXAMPLES_TABLE)
    streamed, sampled = [], []
    for _ in range(60):
        streamed.append(stream.next(timeout=20)["id"])
        batch = examples.next(timeout=20)
        # The data are the same ones in both tables.
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["id"] % 256)
        sampled.append(batch["id"])
    np.testing.assert_array_equal(np.concatenate(streamed), np.arange(60 * 32))
    sampled = np.concatenate(sampled)
    assert len(set(sampled.tolist())) == len(sampled) == 60 * 16


def test_the_ratio_holds_and_the_smallest_priorities_come_first(make_replay, feed):
    config = TableConfig(batch_size=16, samples_per_insert=0.25, capacity=256)
    replay = make_replay(config)
    feed(replay, priority=lambda ids: np.where(ids % 4 == 0, -1.0, 1.0))
    reader = replay.dataset(EXAMPLES_TABLE)
    sampled = np.concatenate([reader.next(timeout=20)["id"] for _ in range(100)])
    assert len(set(sampled.tolist())) == len(sampled)
    found = replay.statistics(EXAMPLES_TABLE)
    # Inserts · ratio − samples stays within the limiter's buffer around its start.
    ahead = found["inserts"] * config.samples_per_insert - found["samples"]
    centre = config.capacity // 2 * config.samples_per_insert
    assert abs(ahead - centre) <= 2 * config.batch_size + 4
    assert found["size"] <= config.capacity
    assert found["samples"] >= len(sampled)
    # A quarter of the examples comes first, and a quarter is sampled.
    assert np.mean(sampled % 4 == 0) > 0.9


def test_samples_never_lead_the_ratio(make_replay, write_all):
    replay = make_replay(TableConfig(batch_size=8, samples_per_insert=0.5, capacity=64))
    # Batches of two, so that all that the limiter lets out comes.
    reader = replay.dataset(EXAMPLES_TABLE, batch_size=2)
    for first in range(0, 100, 20):
        write_all(replay, np.arange(first, first + 20))
        # What is late one time comes the next time.
        with pytest.raises(dataset.ReplayTimeoutError):
            while True:
                reader.next(timeout=0.2 if first < 80 else 1.0)
    # From the third time on it is the ratio that stops it, and no longer how few there are.
    assert replay.statistics(EXAMPLES_TABLE)["samples"] == 50


@pytest.mark.parametrize("ahead", [1, 3])
def test_reading_ahead_is_bounded(make_replay, feed, ahead):
    config = TableConfig(batch_size=16, samples_per_insert=0.5, capacity=256)
    replay = make_replay(config)
    feed(replay)
    reader = replay.dataset(EXAMPLES_TABLE, read_ahead=ahead)
    reader.next(timeout=20)
    # The batch that was taken, and those that are read ahead of the next one: all of them, and no more.
    most, deadline = 16 * (1 + ahead), time.monotonic() + 20
    while (taken := replay.statistics(EXAMPLES_TABLE)["samples"]) < most:
        assert time.monotonic() < deadline
    deadline = time.monotonic() + 0.7
    while time.monotonic() < deadline:
        taken = replay.statistics(EXAMPLES_TABLE)["samples"]
        assert taken == most


def test_what_is_held_is_not_read_over(make_replay, feed):
    """Memory is used again, but not what somebody still has."""
    replay = make_replay(TableConfig(batch_size=16, samples_per_insert=1.0, capacity=256))
    feed(replay)
    reader = replay.dataset(EXAMPLES_TABLE, read_ahead=2)
    held, addresses = [], set()
    for number in range(60):
        batch = reader.next(timeout=20)
        addresses.add(batch["image"].ctypes.data)
        held = [*held[-(number % 4) :], batch] if number % 4 else [batch]
        for each in held:
            np.testing.assert_array_equal(each["image"][:, 0, 1, 0], each["id"] % 256)
    assert len(addresses) < 20


def test_what_is_not_due_is_drawn_when_it_is_asked_for(make_replay, feed, monkeypatch):
    monkeypatch.setattr(dataset.pace.Pace, "delay", lambda *_: 3600.0)
    replay = make_replay(TableConfig(batch_size=16, samples_per_insert=0.5, capacity=256))
    feed(replay)
    reader = replay.dataset(EXAMPLES_TABLE)
    for taken in range(1, 4):
        reader.next(timeout=20)
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            assert replay.statistics(EXAMPLES_TABLE)["samples"] == 16 * taken


def test_stop_ends_the_reader(make_replay, monkeypatch):
    monkeypatch.setattr(shard_reader, "SAMPLE_SECONDS", 0.3)
    replay = make_replay(TableConfig(batch_size=8, samples_per_insert=1.0, capacity=64))
    reader = replay.dataset(EXAMPLES_TABLE)
    replay.stop.set()
    started = time.monotonic()
    reader.close(timeout=10)
    assert time.monotonic() - started < 5


def test_statistics_of_a_server_that_does_not_answer_are_no_error_of_grpc(monkeypatch, tmp_path):
    monkeypatch.setattr(dataset, "_STATISTICS_SECONDS", 1)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        asked = dataset.TableStatistics([f"unix:{tmp_path}/mute"], EXAMPLES_TABLE)
        with pytest.raises(RuntimeError, match="did not answer: DEADLINE_EXCEEDED"):
            asked()
