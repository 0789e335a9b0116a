import os

import numpy as np
import pyarrow as pa
import pytest
import record_files
from table_files import pixels

from classact.data.records import index
from classact.data.records.framing import TFRecords
from classact.data.specs import open_source


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A directory of two shards, so large that what they say is kept below `kept`."""
    monkeypatch.setattr(index, "KEPT_ABOVE", 100)
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path / "kept"))
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        examples = record_files.labelled(5, 5 * number)
        record_files.write_tfrecords(folder / f"{number}.tfrecord", [*examples, b"nonsense"])
    return folder


def kept(tmp_path):
    return list((tmp_path / "kept" / "records").glob("*"))


def opened(shards):
    source = open_source(f"tfrecord:{shards}", "train")
    batch = source.batch(np.arange(10))
    assert (batch["image"] == np.stack([pixels(i) for i in range(10)])).all()
    assert batch["label"].tolist() == [i % 3 for i in range(10)]
    lines = source.left_out.lines()
    assert len(lines) == 1 and lines[0].startswith("2 damaged, as no tf.train.Example and no map of msgpack")
    place = (shards / "0.tfrecord").stat().st_size - len("nonsense") - 4
    assert f"{shards}/0.tfrecord, the record at byte {place}, " in lines[0]
    return source


def test_records_are_read_once_and_what_they_say_is_kept(shards, tmp_path, monkeypatch):
    first = opened(shards)
    (path,) = kept(tmp_path)
    assert str(path) in first.left_out.remarks[0]
    with monkeypatch.context() as patch:
        patch.setattr(index, "_read", None)
        assert opened(shards).digest == first.digest
    os.utime(shards / "0.tfrecord", (0, 0))
    assert opened(shards).digest == first.digest and len(kept(tmp_path)) == 2


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: b"x" * len(content)])
def test_a_kept_file_that_is_damaged_is_written_anew(shards, tmp_path, caplog, damage):
    opened(shards)
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    opened(shards)
    assert "damaged, and written anew" in caplog.text and path.read_bytes() == whole


def test_where_nothing_can_be_kept_records_are_read_by_each_reader(shards, tmp_path, caplog):
    (tmp_path / "kept").write_text("no directory")
    assert opened(shards).left_out.remarks == []
    assert "cannot be kept there (Not a directory)" in caplog.text


def test_small_shards_leave_no_file_behind(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "KEPT_ABOVE", 1 << 20)
    opened(shards)
    assert not (tmp_path / "kept").exists()


def test_an_index_says_where_the_records_of_each_shard_are(shards):
    paths = [str(shards / f"{number}.tfrecord") for number in range(2)]
    found = index.index_of(TFRecords(), paths, "label", False, [6, 9])
    assert found.starts.tolist() == [0, 5, 10] and found.num_broken == 5
    assert found.told.type == pa.int64() and found.told.to_pylist() == [i % 3 for i in range(10)]
    assert found.broken["it is not there, though the data set counts it"] == (3, [paths[1]])
    for shard, path in enumerate(paths):
        part = slice(found.starts[shard], found.starts[shard + 1])
        read = TFRecords().read(path, found.places[part].tolist(), found.sizes[part].tolist())
        assert read == record_files.labelled(5, 5 * shard)
