import threading

import filelock
import pytest

from classact.data.shards import cache as cache_lib
from classact.data.shards.cache import ShardCache
from classact.data.source import DataError


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "shards", 1000)


def content(cache, key, size=400, fetch=None):
    """What is in a file of the cache, and whether it was fetched now."""
    fetches = []

    def write(file):
        fetches.append(key)
        file.write(key.encode() * size)

    with cache.open(key, size, f"shard {key}", fetch or write) as file:
        return file.read(), bool(fetches)


def test_a_file_is_fetched_once(cache):
    assert content(cache, "a") == (b"a" * 400, True)
    assert content(cache, "a") == (b"a" * 400, False)


def test_what_was_used_longest_ago_leaves_first(cache):
    for key in "ab":
        content(cache, key)
    content(cache, "a")
    content(cache, "c")
    assert {path.stem for path in cache.folder.glob("*.tar")} == {"a", "c"}
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 1000


def test_what_is_open_stays_and_what_does_not_fit_is_refused(cache):
    with cache.open("a", 600, "shard a", lambda file: file.write(b"a" * 600)) as first:
        with pytest.raises(
            DataError, match=r"shard b: its 5e-07 GB do not fit .*6e-07 are being read: say a"
        ):
            content(cache, "b", 500)
        assert content(cache, "c", 300)[1]
        assert first.read() == b"a" * 600
    assert content(cache, "b", 500)[1] and not (cache.folder / "a.tar").exists()
    with pytest.raises(DataError, match="do not fit"):
        content(cache, "d", 1001)


def test_a_fetch_that_fails_leaves_nothing(cache):
    def fail(file):
        file.write(b"half")
        raise DataError("shard a: cannot be fetched")

    with pytest.raises(DataError, match="cannot be fetched"):
        content(cache, "a", fetch=fail)
    with pytest.raises(DataError, match="4 bytes came instead of 400"):
        content(cache, "a", fetch=lambda file: file.write(b"half"))
    assert not [path for path in cache.folder.iterdir() if path.suffix != ".lock"]
    assert content(cache, "a")[1]


def test_what_is_found_is_whole(cache, monkeypatch):
    found = []
    replace = cache_lib.os.replace
    monkeypatch.setattr(
        cache_lib.os, "replace", lambda old, new: (found.append(old.read_bytes()), replace(old, new))
    )
    content(cache, "a")
    assert found == [b"a" * 400]


def test_what_is_gone_when_room_is_made_is_no_trouble(cache):
    cache.folder.mkdir()
    assert cache_lib._removed(cache.folder / "a.part")
    (cache.folder / "b.tar").write_bytes(bytes(10))
    # Fetched meanwhile: it takes its room under its name.
    assert not cache_lib._removed(cache.folder / "b.part")
    assert [(size, path.name) for _, size, path in cache_lib._files(cache.folder)] == [(10, "b.tar")]


def test_what_a_dead_process_left_is_removed_when_there_is_no_room(cache):
    content(cache, "a", 100)
    (cache.folder / "b.part").write_bytes(bytes(900))
    assert content(cache, "c", 800)[1] and not (cache.folder / "b.part").exists()


def test_nobody_makes_room_between_the_two_locks_of_a_new_file(cache, monkeypatch):
    opened, seen = cache_lib._opened, []

    def watched(path, size):
        if path.exists():
            seen.append(path)
            with pytest.raises(filelock.Timeout):
                filelock.FileLock(cache.folder / "room.lock", timeout=0).acquire()
        return opened(path, size)

    monkeypatch.setattr(cache_lib, "_opened", watched)
    assert content(cache, "a")[1] and len(seen) == 1


def test_another_users_file_is_read(cache, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    content(cache, "a")
    monkeypatch.setattr(cache_lib.os, "utime", refused)
    assert content(cache, "a") == (b"a" * 400, False)


def test_several_who_want_a_file_fetch_it_once(cache):
    entered, go, found = threading.Event(), threading.Event(), []

    def slow(file):
        entered.set()
        assert go.wait(30)
        file.write(b"a" * 400)

    def ask(fetch):
        with cache.open("a", 400, "shard a", fetch) as file:
            found.append(file.read())

    threads = [threading.Thread(target=ask, args=(slow,))]
    threads[0].start()
    assert entered.wait(30)
    threads += [threading.Thread(target=ask, args=(None,)) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert found == [b"a" * 400] * 4


def test_who_fetches_for_ever_is_not_waited_for(cache, monkeypatch):
    monkeypatch.setattr(cache_lib, "LOCK_SECONDS", 0.01)
    cache.folder.mkdir()
    with (
        filelock.FileLock(cache.folder / "0a.lock"),
        pytest.raises(DataError, match="shard a: another process has been fetching it"),
    ):
        content(cache, "a")


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"shard a: cannot be kept in .*/file/shards"):
        content(ShardCache(tmp_path / "file" / "shards", 1000), "a")
