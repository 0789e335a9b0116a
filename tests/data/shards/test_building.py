import os
import threading

import filelock
import numpy as np
import pytest
from shards_made import read_all, write_shard

from classact.data import announced, digests
from classact.data.shards import building
from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.tar_members import members_of


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Indexes are kept of the smallest shards too."""
    monkeypatch.setattr(building, "SMALL_BYTES", 0)
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path / "cache"))


@pytest.fixture
def built(monkeypatch):
    """How often each shard was indexed."""
    found = []
    add = building._add_shard
    monkeypatch.setattr(
        building, "_add_shard", lambda shard, *rest: (found.append(str(shard)), add(shard, *rest))
    )
    return found


def pairs(tmp_path, name, values):
    return write_shard(tmp_path / "data" / name, values, "txt", lambda v: f"caption {v}")


def indexes(folder):
    return (
        sorted(path.name for path in folder.iterdir() if path.suffix == ".index") if folder.is_dir() else []
    )


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "data").mkdir()
    pairs(tmp_path, "a.tar", range(5))
    pairs(tmp_path, "b.tar", range(5, 9))
    return f"tar:{tmp_path}/data/*.tar"


def contents(source):
    batch = read_all(source)
    return {name: batch[name].tolist() for name in ("id", "image", "caption")}


def test_an_index_is_made_once_and_says_the_same(tmp_path, spec, built):
    write_shard(tmp_path / "data" / "c.tar", [9], "json")
    progress = []
    with announced.progress_heard_by(lambda: progress.append(len(built))):
        first = open_source(spec, "train")
        assert len(built) == 3 and len(indexes(tmp_path / "data")) == 1
        second = open_source(spec, "train")
    assert len(built) == 3
    # Who waits for it hears of each shard.
    assert progress == [1, 2, 3]
    assert contents(first) == contents(second)
    assert first.digest == second.digest
    assert list(first.left_out) == list(second.left_out) != []
    assert second.left_out.remarks == first.left_out.remarks != []
    # What is read in another way has an index of its own.
    open_source(f"{spec}?captions=lines", "train")
    assert len(built) == 6 and len(indexes(tmp_path / "data")) == 2


def test_the_digest_is_that_of_places_and_captions(tmp_path, spec):
    source = open_source(spec, "train")
    members = [
        member
        for name in ("a", "b")
        for member in members_of(tmp_path / "data" / f"{name}.tar")
        if member.name.endswith(".png")
    ]
    captions = [f"caption {i}" for i in range(9)]
    assert source.digest == digests.of_places(digests.places_of(members), captions)


@pytest.mark.parametrize("change", ["size", "time", "fewer", "damaged index", "short index"])
def test_an_index_of_what_was_there_once_is_made_anew(tmp_path, spec, built, change):
    open_source(spec, "train")
    path, index = tmp_path / "data" / "b.tar", tmp_path / "data" / indexes(tmp_path / "data")[0]
    if change == "size":
        pairs(tmp_path, "b.tar", range(20, 40))
    elif change == "time":
        status = path.stat()
        pairs(tmp_path, "b.tar", range(20, 24))
        os.utime(path, ns=(status.st_mtime_ns + 1000, status.st_mtime_ns + 1000))
        assert path.stat().st_size == status.st_size
    elif change == "fewer":
        path.unlink()
    elif change == "damaged index":
        index.write_bytes(b"?" + index.read_bytes()[1:])
    else:
        os.truncate(index, index.stat().st_size - 1)
    count = len(built)
    source = open_source(spec, "train")
    assert len(built) == count + (1 if change == "fewer" else 2)
    last = {"size": 39, "time": 23, "fewer": 4}.get(change, 8)
    assert source.caption_at(np.array([source.num_examples - 1])) == [f"caption {last}"]


def test_where_the_folder_cannot_be_written_the_cache_is(tmp_path, spec, built, monkeypatch):
    monkeypatch.setattr(building, "_may_write", lambda folder: False)
    open_source(spec, "train")
    open_source(spec, "eval")
    assert len(built) == 2 and not indexes(tmp_path / "data")
    assert len(indexes(tmp_path / "cache" / "indexes")) == 1


def test_in_the_cache_each_folder_has_an_index_of_its_own(tmp_path, spec, built, monkeypatch):
    monkeypatch.setattr(building, "_may_write", lambda folder: False)
    (tmp_path / "other").mkdir()
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / "other" / name, [30], "txt", lambda v: f"caption {v}")
    for _ in range(2):
        assert open_source(spec, "train").num_examples == 9
        assert open_source(f"tar:{tmp_path}/other/*.tar", "train").num_examples == 2
    # However the folder is called.
    monkeypatch.chdir(tmp_path)
    open_source("tar:other/*.tar", "train")
    assert len(built) == 4 and len(indexes(tmp_path / "cache" / "indexes")) == 2


def test_buckets_have_an_index_each():
    one, other = (building._cached_name("k", f"s3://{bucket}/train") for bucket in "ab")
    assert one != other and one == building._cached_name("k", "s3://a/train")


def test_where_the_lock_is_another_users_the_cache_is(tmp_path, spec, built, monkeypatch, caplog):
    acquire = filelock.FileLock.acquire

    def refused(lock, *args, **kwargs):
        if str(tmp_path / "data") in lock.lock_file:
            raise PermissionError(13, "Permission denied")
        return acquire(lock, *args, **kwargs)

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    for _ in range(2):
        assert open_source(spec, "train").num_examples == 9
    assert len(built) == 2 and not indexes(tmp_path / "data")
    assert len(indexes(tmp_path / "cache" / "indexes")) == 1
    assert "its index is kept in" in caplog.text and ".lock: Permission denied" in caplog.text


def test_where_no_index_can_be_the_folder_is_named(tmp_path, spec, monkeypatch):
    (tmp_path / "cache").write_bytes(b"")
    monkeypatch.setattr(building, "_may_write", lambda folder: False)
    with pytest.raises(
        DataError, match=r"no folder for its index: .*/cache/indexes cannot be made .*CLASSACT_DATA"
    ):
        open_source(spec, "train")
    monkeypatch.undo()
    assert not building._may_write(tmp_path / "nowhere") and building._may_write(tmp_path)


def test_a_full_disk_is_named(tmp_path, spec, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building, "write_index", full)
    with pytest.raises(DataError, match=r"its index, .*\.index, cannot be made \(No space left on device\)"):
        open_source(spec, "train")


def test_small_shards_leave_nothing_behind(tmp_path, spec, built, monkeypatch):
    monkeypatch.setattr(building, "SMALL_BYTES", 64 << 20)
    assert open_source(spec, "train").num_examples == 9
    assert sorted(os.listdir(tmp_path / "data")) == ["a.tar", "b.tar"] and not (tmp_path / "cache").exists()


def test_an_interrupted_index_leaves_nothing_that_counts(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(building.CaptionedImages, "finish", lambda found: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_source(spec, "train")
    monkeypatch.undo()
    assert not indexes(tmp_path / "data")
    assert open_source(spec, "train").num_examples == 9


def test_of_several_who_open_shards_one_makes_the_index(spec, built):
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(open_source(spec, "train"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [source.num_examples for source in opened] == [9] * 4 and len(built) == 2


def test_what_a_dead_process_left_is_removed(tmp_path, spec):
    open_source(spec, "train")
    (index,) = indexes(tmp_path / "data")
    (tmp_path / "data" / index).unlink()
    left = tmp_path / "data" / f"{index}.abc.part"
    left.write_bytes(b"half")
    open_source(spec, "train")
    assert indexes(tmp_path / "data") == [index] and not left.exists()
    assert (tmp_path / "data" / index).stat().st_mode & 0o777 == 0o644


def test_who_makes_an_index_for_ever_is_named(tmp_path, spec, monkeypatch, caplog):
    open_source(spec, "train")
    (index,) = indexes(tmp_path / "data")
    (tmp_path / "data" / index).unlink()
    monkeypatch.setattr(building, "LOCK_SECONDS", 0.01)
    said = r"another process has been making the index .*remove .*\.lock"
    with filelock.FileLock(tmp_path / "data" / f"{index}.lock"), pytest.raises(DataError, match=said):
        open_source(spec, "train")
    assert "waiting for another process that makes its index" in caplog.text


def test_copies_are_found_by_their_bytes(tmp_path):
    (tmp_path / "data").mkdir()
    pairs(tmp_path, "a.tar", [7, 8, 7, 200])
    path = pairs(tmp_path, "b.tar", [8, 9])
    source = open_source(f"tar:{path.parent}/*.tar", "train")
    assert source.same_images.tolist() == [0, 1, 0, 3, 1, 5]
