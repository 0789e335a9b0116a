"""Tables that were saved come back, and writers and readers outlive their server."""

import threading
import time
from unittest import mock

import numpy as np
import pytest

from classact.replay import dataset, folders, server_calls, snapshots
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig

QUEUE = TableConfig(batch_size=8, samples_per_insert=1.0, capacity=64)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def replay(make_replay, tmp_path):
    return make_replay(QUEUE, tmp_path / "0")


@pytest.fixture
def save(replay, tmp_path):
    saved = snapshots.Snapshots([replay.address], [tmp_path / "0"])
    return lambda step, kept=(): saved.save(step, kept)


def test_a_server_begins_with_what_was_saved_last(replay, save, write_all):
    write_all(replay, np.arange(8))
    save(3)
    write_all(replay, np.arange(8, 16))
    save(5, kept=[3])
    # The limiter lets in no more than 18 that nobody takes.
    write_all(replay, np.arange(16, 18))
    replay.restart()
    reader = replay.dataset(EXAMPLES_TABLE)
    np.testing.assert_array_equal(np.concatenate([reader.next(20)["id"] for _ in range(2)]), np.arange(16))
    # What was inserted after it is gone.
    with pytest.raises(dataset.ReplayTimeoutError):
        reader.next(1.0)


def test_what_happens_after_the_tables_are_set_aside_is_not_saved(replay, write_all, tmp_path):
    write_all(replay, np.arange(12))
    saving = snapshots.Snapshots([replay.address], [tmp_path / "0"]).begin(3)
    saving.wait_set_aside(20)
    # It is taken, and there is more, before it is written or after.
    assert replay.take(EXAMPLES_TABLE, 4) == [0, 1, 2, 3]
    write_all(replay, np.arange(12, 16))
    saving.finish([], 20)
    replay.restart()
    found = replay.take(EXAMPLES_TABLE, 16)
    assert found == list(range(12))


def test_the_ratio_goes_on_where_it_was(make_replay, tmp_path, feed):
    config = TableConfig(batch_size=8, samples_per_insert=0.5, capacity=64, super_batch=32)
    replay = make_replay(config, tmp_path)
    feed(replay)
    readers = [replay.dataset(EXAMPLES_TABLE), replay.dataset(STREAM_TABLE, 16)]
    for _ in range(20):
        for reader in readers:
            reader.next(20)
    snapshots.Snapshots([replay.address], [tmp_path]).save(20, [])
    replay.restart()
    for _ in range(20):
        for reader in readers:
            reader.next(20)
    found = replay.statistics(EXAMPLES_TABLE)
    ahead = found["inserts"] * 0.5 - found["samples"]
    assert abs(ahead) < 32 + 0.5 * (config.capacity + 2 * config.super_batch + 4 * 16)


def test_tables_of_other_steps_are_removed(replay, save, tmp_path):
    for step, kept in ((3, ()), (5, (3,)), (8, (5,))):
        save(step, kept)
    assert names(tmp_path / "0") == ["5", "8", "new"]
    assert sorted(folders.steps(tmp_path / "0")) == [5, 8]
    folders.keep(tmp_path / "0", [5])
    assert names(tmp_path / "0") == ["5", "new"]
    # Again at the same step: the newer one counts.
    save(5)
    assert names(tmp_path / "0") == ["5", "new"]


def test_what_was_not_finished_does_not_count(replay, save, tmp_path, write_all):
    write_all(replay, np.arange(8))
    save(3)
    (tmp_path / "0" / "9").mkdir()
    assert folders.steps(tmp_path / "0") == [3]
    replay.restart()
    np.testing.assert_array_equal(replay.dataset(EXAMPLES_TABLE).next(20)["id"], np.arange(8))


def test_all_shards_are_saved_or_the_failure_is_named(make_replay, tmp_path):
    shards = [make_replay(QUEUE, tmp_path / str(shard)) for shard in range(2)]
    addresses = [shard.address for shard in shards]
    saved = snapshots.Snapshots(addresses, [tmp_path / "0", tmp_path / "1"], timeout=20)
    saved.save(4, [])
    assert [folders.steps(tmp_path / str(shard)) for shard in range(2)] == [[4], [4]]

    def fails():
        with pytest.raises(snapshots.SnapshotError, match=addresses[1]) as caught:
            saved.save(6, [4])
        assert addresses[0] not in str(caught.value)

    shards[1].restart(while_down=fails)


class Late:
    """In place of a server: writes a shard's tables when it is let."""

    def __init__(self, folder, monkeypatch, timeout=0.3):
        self.folder, self.let, self.fails = folder, {"a": threading.Event(), "b": threading.Event()}, set()
        late = self

        class Server:
            def __init__(self, address):
                self._address = address

            def checkpoint(self, timeout):
                assert late.let[self._address].wait(20)
                if self._address in late.fails:
                    raise server_calls.ReplayError("the disk is full")
                return late.written(self._address)

            def close(self):
                pass

        monkeypatch.setattr(snapshots, "ServerCalls", Server)
        self.snapshots = snapshots.Snapshots(["a", "b"], [folder / "a", folder / "b"], timeout)

    def written(self, address):
        made = self.folder / address / folders.NEW / str(time.monotonic_ns())
        made.mkdir(parents=True)
        (made / "DONE").touch()
        return str(made)

    def steps(self):
        return [sorted(folders.steps(self.folder / name)) for name in "ab"]

    def wait(self):
        for thread in threading.enumerate():
            if thread.name == "replay snapshot":
                thread.join(20)


@pytest.fixture
def late(tmp_path, monkeypatch):
    return Late(tmp_path, monkeypatch)


def test_what_some_shards_have_saved_is_taken_back(late):
    late.let["a"].set()
    with pytest.raises(snapshots.SnapshotError, match=r"^b: no answer in 0\.3 s$"):
        late.snapshots.save(6, [])
    assert late.steps() == [[], []]
    # The other one is done after all: too late.
    late.let["b"].set()
    late.wait()
    assert late.steps() == [[], []]
    assert not list(late.folder.glob(f"*/{folders.NEW}/*"))
    late.snapshots.save(9, [])
    assert late.steps() == [[9], [9]]


def test_a_shard_that_fails_takes_back_the_others_and_nothing_older(late):
    for event in late.let.values():
        event.set()
    late.snapshots.save(3, [])
    late.fails.add("b")
    with pytest.raises(snapshots.SnapshotError, match=r"^b: the disk is full$"):
        late.snapshots.save(6, [3])
    assert late.steps() == [[3], [3]]


def test_what_a_dead_learner_had_saved_is_not_taken_for_what_is_asked_for(late):
    def made_by_server(address, name):
        folder = late.folder / address / folders.NEW / name
        folder.mkdir(parents=True)
        (folder / "items.tfrecord").touch()
        return folder

    for address in "ab":
        made_by_server(address, "2026-11-29T00:00")
    saving = late.snapshots.begin(6)
    with pytest.raises(snapshots.SnapshotError, match=r"a: has not begun to save in 0\.2 s"):
        saving.wait_set_aside(0.2)
    # One answers somebody else first.
    made_by_server("a", "2026-11-30T00:00")
    made_by_server("b", "2026-11-30T00:00")
    saving.wait_set_aside(20)
    assert saving.is_set_aside()
    for event in late.let.values():
        event.set()
    with pytest.raises(snapshots.SnapshotError, match=r"a: it was saving to .*2026-11-30T00:00 as well"):
        saving.finish([], 20)
    late.wait()
    assert late.steps() == [[], []]


def test_the_time_out_is_of_all_shards_together(late):
    began = time.monotonic()
    with pytest.raises(snapshots.SnapshotError, match=r"a: no answer.*; b: no answer"):
        late.snapshots.save(6, [])
    assert time.monotonic() - began < 0.55
    for event in late.let.values():
        event.set()
    late.wait()


def test_older_tables_that_cannot_be_removed_do_not_fail_the_new_ones(late, monkeypatch, caplog):
    for event in late.let.values():
        event.set()
    late.snapshots.save(3, [])
    with monkeypatch.context() as patched:
        patched.setattr(folders, "keep", mock.Mock(side_effect=OSError("Directory not empty")))
        late.snapshots.save(6, [])
    assert "Directory not empty" in caplog.text
    assert late.steps() == [[3, 6], [3, 6]]
    late.snapshots.save(9, [])
    assert late.steps() == [[9], [9]]


def test_a_step_can_be_discarded(late):
    for event in late.let.values():
        event.set()
    for step in (3, 6):
        late.snapshots.save(step, [3])
    late.snapshots.discard(6)
    late.snapshots.discard(7)
    assert late.steps() == [[3], [3]]


def test_a_writer_goes_on_when_its_server_is_back(make_replay, tmp_path, batch_of):
    replay = make_replay(QUEUE, tmp_path)
    out = replay.writer()
    ones = np.ones(8).__getitem__, np.ones(8, bool)
    out.write(batch_of(np.arange(8)), *ones)
    wrote = threading.Event()

    def write():
        for first in range(8, 80, 8):
            out.write(batch_of(np.arange(first, first + 8)), *ones)
        out.flush()
        wrote.set()

    thread = threading.Thread(target=write, daemon=True)
    replay.restart(while_down=thread.start)
    reader = replay.dataset(EXAMPLES_TABLE)
    found = set()
    while not set(range(32, 72)) <= found:
        found |= set(reader.next(60)["id"].tolist())
    assert wrote.wait(60)


def test_a_reader_goes_on_when_its_server_is_back(make_replay, tmp_path, write_all):
    replay = make_replay(QUEUE, tmp_path)
    reader = replay.dataset(EXAMPLES_TABLE)
    write_all(replay, np.arange(16))
    np.testing.assert_array_equal(reader.next(20)["id"], np.arange(8))

    def is_late():
        with pytest.raises(dataset.ReplayTimeoutError):
            # It may have read another one ahead.
            for _ in range(2):
                reader.next(3.0)

    replay.restart(while_down=is_late)
    write_all(replay, np.arange(100, 116))
    found = set()
    while not set(range(100, 108)) <= found:
        found |= set(reader.next(60)["id"].tolist())


def test_what_was_read_ahead_is_in_the_next_two_batches(make_replay, feed):
    replay = make_replay(QUEUE)
    feed(replay)
    reader = replay.dataset(EXAMPLES_TABLE, remembered=2)
    given = [reader.next(20)["id"] for _ in range(5)]
    before = np.concatenate(given)
    table = replay.statistics(EXAMPLES_TABLE)
    assert table["samples"] <= len(before) + 8
    reader.remember(2)
    given += [reader.next(20)["id"] for _ in range(2)]
    recent = replay.codec.unpack(reader.recent(3))["id"]
    np.testing.assert_array_equal(recent, np.concatenate(given[-3:]))
    with pytest.raises(ValueError, match="only the last 4"):
        reader.recent(5)
    assert len(reader.recent(0)) == 0
    # From then on it holds no more than it always does.
    reader.remember(0)
    with pytest.raises(ValueError, match="only the last 2"):
        reader.recent(3)


def test_what_an_earlier_process_had_read_comes_first(make_replay, feed, batch_of):
    replay = make_replay(QUEUE)
    feed(replay, first=100)
    earlier = replay.codec.pack(batch_of(np.arange(16)))
    reader = replay.dataset(EXAMPLES_TABLE, remembered=2, first=earlier)
    found = [reader.next(20)["id"] for _ in range(3)]
    np.testing.assert_array_equal(np.concatenate(found), [*range(16), *range(100, 108)])
    np.testing.assert_array_equal(
        replay.codec.unpack(reader.recent(2))["id"], [*range(8, 16), *range(100, 108)]
    )
