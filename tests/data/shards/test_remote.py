import contextlib
import logging
import threading
import traceback
import types

import numpy as np
import pytest
from shard_server import cutting, serving
from shards_made import png, read_all, reds, write_shard, write_tar

from classact.data import tar_shards
from classact.data.decoding import pool
from classact.data.shard_stream import make_stream
from classact.data.shards import remote
from classact.data.shards.cache import ShardCache
from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream
from classact.nodes import activity


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Small requests that are repeated at once, and a cache of this test."""
    monkeypatch.setattr(remote, "CHUNK_BYTES", 4000)
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(remote, "LAST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served(tmp_path):
    """Four labelled shards of ten images each, behind a server."""
    with serving() as found:
        for number in range(4):
            path = write_shard(tmp_path / f"s-{number}.tar", range(number * 10, number * 10 + 10))
            found.files[f"/data/s-{number}.tar"] = path.read_bytes()
        yield found


def spec(served, options=""):
    return f"tar:{served.url}/data/s-{{0..3}}.tar?label=cls{options}"


def fetched(served):
    """How many requests for bytes came, by shard."""
    paths = [path for method, path, _ in served.requests if method == "GET" and path.endswith(".tar")]
    return {path: paths.count(path) for path in sorted(set(paths))}


def test_shards_behind_urls_are_read_in_sequence_and_fetched_once(served, tmp_path):
    source = open_source(spec(served, "&buffer=8"), "train")
    assert source.num_classes == 40 and source.in_shards.buffer == 8
    stream = make_stream(source, 8, seed=0)
    ids = np.concatenate([next(stream)["id"] for _ in range(10)])
    assert sorted(ids[:40].tolist()) == sorted(ids[40:].tolist()) == list(range(40))
    size = len(served.files["/data/s-0.tar"])
    assert fetched(served) == {f"/data/s-{i}.tar": -(-size // 4000) for i in range(4)}
    assert len(list((tmp_path / "cache" / "shards").glob("*.tar"))) == 4
    # Another process finds the index and the shards.
    served.requests.clear()
    again = open_source(spec(served, "&order=iid"), "train")
    assert reds(again) == list(range(40)) and isinstance(make_stream(again, 8, 0), IIDStream)
    assert fetched(served) == {}
    local = open_source(f"tar:{tmp_path}/s-*.tar", "train")
    assert local.digest == again.digest


def test_cut_and_refused_requests_are_made_again_and_counted(served, caplog):
    served.late_seconds = 0.01
    served.faults = ["cut", 503, 500, "cut", 429]
    with caplog.at_level(logging.WARNING):
        source = open_source(spec(served), "train")
    assert reds(source) == list(range(40))
    assert "s-0.tar: asked again (request 2 of this kind, 1 again so far)" in caplog.text
    assert "5 again so far" in caplog.text


def test_a_server_without_ranges_is_read_too(served):
    served.ranges = False
    assert reds(open_source(spec(served), "train")) == list(range(40))


def test_at_random_one_shard_at_a_time_is_fetched_by_who_asks(served, monkeypatch):
    cache = ShardCache(remote.shard_cache(1).folder, 2 * max(map(len, served.files.values())))
    monkeypatch.setattr(tar_shards, "shard_cache", lambda _: cache)
    fetching, fetch = [], remote.RemoteShard._fetch
    monkeypatch.setattr(
        remote.RemoteShard,
        "_fetch",
        lambda *args: (fetching.append(activity.report().doing), fetch(*args))[1],
    )
    source = open_source(spec(served, "&order=iid"), "train")
    assert source.fetched_whole.tolist() == [0, 10, 20, 30, 40]
    fetching.clear()
    served.late_seconds = 0.002
    wanted = np.random.default_rng(0).permutation(40)
    pool.use_threads(4)
    try:
        with activity.part("evaluator"):
            assert source.batch(wanted)["label"].tolist() == wanted.tolist()
    finally:
        pool.use_threads(0)
    assert 2 <= len(fetching) <= 4 and all("waiting for http://" in each for each in fetching)
    assert not source._members._held


def test_what_was_read_ahead_is_kept_for_as_often_as_it_was_asked_for(served):
    source = open_source(spec(served), "train")
    source.load(np.array([3, 3]))
    for wanted, held in (([13, 3, 13], {3: 1}), ([3], {}), ([25, 25], {})):
        assert source.batch(np.array(wanted))["label"].tolist() == wanted
        assert {image: count for image, (_, count) in source._members._held.items()} == held


def test_what_cannot_be_fetched_leaves_nothing_held(served, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", 0.05)
    source = open_source(spec(served, "&order=iid"), "train")
    for path in (remote.shard_cache(1).folder).glob("*.tar"):
        path.unlink()
    served.faults = [None] * -(-len(served.files["/data/s-0.tar"]) // 4000) + [503] * 1000
    with pytest.raises(DataError, match=r"s-1\.tar: cannot be fetched after"):
        source.batch(np.array([15, 1]))
    assert not source._members._held


def test_the_next_shard_is_fetched_ahead(served):
    source = open_source(spec(served, "&buffer=2"), "train")
    for path in (remote.shard_cache(1).folder).glob("*.tar"):
        path.unlink()
    stream = make_stream(source, 1, seed=0)
    next(stream)
    for thread in threading.enumerate():
        if thread.name == "shard":
            thread.join(30)
    assert len(list(remote.shard_cache(1).folder.glob("*.tar"))) == 2 and stream.cursor["position"] == 1


@pytest.mark.parametrize(("status", "said"), [(404, "no such file|404"), (403, "403"), (401, "401")])
def test_what_will_always_fail_is_not_asked_again(served, status, said):
    served.faults = [status] * 3
    with pytest.raises(DataError, match=rf"/data/s-0\.tar: cannot be fetched: .*({said})"):
        open_source(spec(served), "train")
    assert len(served.faults) == 2


def test_after_a_limit_the_shard_is_named(served, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", 0.2)
    source = open_source(spec(served, "&buffer=8"), "train")
    for path in (remote.shard_cache(1).folder).glob("*.tar"):
        path.unlink()
    served.faults = [503] * 10_000
    with pytest.raises(DataError, match=r"/data/s-\d\.tar: cannot be fetched after \d+ tries in 0 s: .*503"):
        next(make_stream(source, 8, seed=0))
    # It is no damage, also where it is read at random.
    with pytest.raises(DataError, match=r"s-3\.tar: cannot be fetched after"):
        source.batch(np.array([39]))
    assert source.skipped == 0
    served.faults = []
    assert read_all(source)["label"].tolist() == list(range(40))


def test_a_shard_that_is_missing_is_named(served):
    del served.files["/data/s-2.tar"]
    with pytest.raises(DataError, match=r"/data/s-2\.tar: cannot be fetched: no such file|s-2\.tar.*404"):
        open_source(spec(served), "train")


def test_a_shard_that_changed_is_fetched_and_indexed_anew(served, tmp_path):
    assert open_source(spec(served), "train").num_examples == 40
    served.files["/data/s-3.tar"] = write_shard(tmp_path / "new.tar", range(30, 45)).read_bytes()
    assert reds(open_source(spec(served), "train")) == list(range(45))


def test_an_index_made_where_the_shards_were_written_goes_with_them(served, tmp_path, monkeypatch):
    from classact.data.shards import building

    monkeypatch.setattr(building, "SMALL_BYTES", 0)
    open_source(f"tar:{tmp_path}/s-*.tar?label=cls", "train")
    (index,) = tmp_path.glob(".classact-*.index")
    served.files[f"/data/{index.name}"] = index.read_bytes()
    source = open_source(spec(served), "train")
    assert source.num_examples == 40
    assert not {"/data/s-1.tar", "/data/s-2.tar", "/data/s-3.tar"} & set(fetched(served))
    # It is of these shards: others make one of their own.
    served.files["/data/s-1.tar"] = write_shard(tmp_path / "new.tar", range(10, 25)).read_bytes()
    assert open_source(spec(served), "train").num_examples == 45


def test_damaged_shards_are_named_by_their_url(served):
    served.files["/data/s-1.tar"] = served.files["/data/s-1.tar"][:3000]
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:\d+/data/s-1\.tar: cut off"):
        open_source(spec(served), "train")
    served.files["/data/s-1.tar"] = b"?" * 2000
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:\d+/data/s-1\.tar: not a tar file"):
        open_source(spec(served), "train")


@pytest.mark.parametrize("options", ["&damaged=0.9", "&damaged=0.9&size=4"])
def test_first_images_that_are_damaged_keep_no_set_from_being_opened(served, tmp_path, options):
    def first_damaged(count):
        members = [(f"{i}.png", b"text" if i < count else png(i)) for i in range(10)]
        members += [(f"{i}.cls", str(i)) for i in range(10)]
        return write_tar(tmp_path / "damaged.tar", members).read_bytes()

    served.files["/data/s-0.tar"] = first_damaged(2)
    source = open_source(spec(served, options), "train")
    assert source.skipped == 2 and source.sizes == {(6, 4): 1}
    assert len(read_all(source)["id"]) == 38 and fetched(served).keys() == {
        f"/data/s-{i}.tar" for i in range(4)
    }
    served.files["/data/s-0.tar"] = first_damaged(10)
    with pytest.raises(DataError, match="10 of 10 images that were opened: 10 damaged"):
        open_source(spec(served, options), "train")


def test_secrets_in_errors_are_masked():
    error = OSError("https://me:hush@h/a?X-Signature=hush refused\nnow")
    assert remote._reason(error) == "OSError: https://…@h/a?… refused now"


@pytest.mark.parametrize(("kind", "attribute"), [(OSError, "_storage"), (ValueError, "_found")])
def test_no_query_of_a_url_is_in_a_printed_traceback(tmp_path, monkeypatch, kind, attribute):
    def refused(*args, **kwargs):
        raise kind("https://h/a?X-Amz-Signature=hush refused")

    shard = remote.RemoteShard("https://h/a", ShardCache(tmp_path, 1000), remote.Fetches())
    monkeypatch.setattr(remote, "RETRY_SECONDS", 0.0)
    if attribute == "_storage":
        monkeypatch.setattr(
            remote.RemoteShard, "_found", (types.SimpleNamespace(info=refused, cat_file=refused), "a")
        )
    else:
        monkeypatch.setattr("fsspec.core.url_to_fs", refused)
    with pytest.raises(DataError) as caught:
        shard.stamp()
    printed = "".join(traceback.format_exception(caught.value))
    assert "https://h/a?… refused" in printed and "hush" not in printed


def test_options_and_schemes_that_are_none(served):
    for options, said in (("&cache_gb=0", "cache_gb=0"), ("&order=fast", "order=fast")):
        with pytest.raises(DataError, match=said):
            open_source(spec(served, options), "train")
    with pytest.raises(DataError, match=r"gopher://h/a\.tar: .*expected s3://, gs://, https:// or hf://"):
        open_source("tar:gopher://h/a.tar", "train")
    with pytest.raises(DataError, match=r"cache_gb=3 is for URLs"):
        open_source("tar:/dev/null?cache_gb=3", "train")


def test_a_library_that_is_missing_is_named(served, monkeypatch):
    real = remote.importlib.import_module

    def without(name):
        if name == "aiohttp":
            raise ImportError("No module named 'aiohttp'")
        return real(name)

    monkeypatch.setattr(remote.importlib, "import_module", without)
    with pytest.raises(DataError, match=r"to read http:// URLs, pip install 'classact\[remote\]'"):
        open_source(spec(served), "train")


def test_who_waits_for_a_shard_says_so(served, monkeypatch):
    source = open_source(spec(served, "&buffer=8"), "train")
    for path in (remote.shard_cache(1).folder).glob("*.tar"):
        path.unlink()
    said = []
    chunk = remote.RemoteShard._chunk
    monkeypatch.setattr(
        remote.RemoteShard, "_chunk", lambda *args: (said.append(activity.report().doing), chunk(*args))[1]
    )
    with activity.part("run loop"):
        next(make_stream(source, 8, seed=0))
    assert "waiting for http://127.0.0.1" in said[0] and "to be fetched" in said[0]


@contextlib.contextmanager
def s3(monkeypatch):
    """A server of S3's protocol, late, with the credentials in the environment; yields what cuts answers."""
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        # An answer with a piece of a shard is longer than others.
        with cutting(host, port, after_bytes=3000, late_seconds=0.005) as (url, cuts):
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            yield cuts
    finally:
        server.stop()


def test_shards_of_an_s3_server_are_read(monkeypatch, tmp_path, caplog):
    import s3fs

    with s3(monkeypatch) as cuts, caplog.at_level(logging.INFO):
        s3fs.S3FileSystem.clear_instance_cache()
        storage = s3fs.S3FileSystem()
        storage.mkdir("bucket")
        for number in range(2):
            path = write_shard(tmp_path / f"s-{number}.tar", range(number * 10, number * 10 + 10))
            storage.put_file(str(path), f"bucket/train/s-{number}.tar")
        cuts += [True] * 6
        source = open_source("tar:s3://bucket/train/s-{0..1}.tar?buffer=5", "train")
        # The library tries five times by itself.
        assert not cuts and "s-0.tar: asked again" in caplog.text
        stream = make_stream(source, 5, seed=0)
        assert sorted(np.concatenate([next(stream)["id"] for _ in range(4)]).tolist()) == list(range(20))
        with pytest.raises(DataError, match=r"s3://bucket/train/s-2\.tar: cannot be fetched: no such file"):
            open_source("tar:s3://bucket/train/s-{0..2}.tar", "train")
        s3fs.S3FileSystem.clear_instance_cache()
    assert "hush" not in caplog.text and not any("moto" in each.name for each in threading.enumerate())
