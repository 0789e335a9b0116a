import errno
import json
import logging
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import COUNT, NAMES, pixels, png

from classact.data.specs import open_source
from classact.data.tables import row_groups
from classact.data.tables.parquet import ParquetTable, files_of


def test_a_file_a_directory_and_a_pattern_are_files_by_name(tables):
    labelled = [f"{tables}/labelled-0.parquet", f"{tables}/labelled-1.parquet"]
    assert files_of(f"{tables}/labelled-[01].parquet") == labelled
    assert files_of(labelled[1]) == labelled[1:]
    assert files_of(f"{tables}/{{paths,labelled-{{1..1}}}}.parquet") == [
        f"{tables}/paths.parquet", labelled[1],
    ]  # fmt: skip
    assert files_of(str(tables)) == [*labelled, f"{tables}/pairs.parquet", f"{tables}/paths.parquet"]


def test_names_of_classes_are_those_of_a_file_or_of_hugging_faces_schema(tables, tmp_path):
    spec = f"parquet:{tables}/labelled-0.parquet"
    assert open_source(f"{spec}?classes={tables}/names.txt", "train").class_names == NAMES
    assert open_source(f"{spec}?classes=5", "train").num_classes == 5
    features = {"foto": {"_type": "Image"}, "kind": {"_type": "ClassLabel", "names": list(NAMES)}}
    written = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"foto": [png(pixels(i)) for i in range(4)], "kind": [0, 1, 2, -1], "text": ["x"] * 4})
    pq.write_table(table.replace_schema_metadata(written), tmp_path / "x.parquet")
    source = open_source(f"parquet:{tmp_path}/x.parquet?label=kind", "train")
    assert source.class_names == NAMES and source.label_of.tolist() == [0, 1, 2]


def test_paths_start_from_the_folder_that_is_said(tables, tmp_path):
    pq.write_table(pa.table({"path": ["1.png", "0.png"], "label": [0, 1]}), tmp_path / "x.parquet")
    source = open_source(f"parquet:{tmp_path}/x.parquet?folder={tables}/photos", "train")
    assert (source.batch(np.array([0, 1]))["image"] == np.stack([pixels(1), pixels(0)])).all()
    assert source.digest.startswith("files:")


@pytest.fixture
def small_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(row_groups, "MEMORY", 600)
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(table, rows):
    return [pixels_of(value) for value in table.images("image", rows)]


def pixels_of(value):
    return value if isinstance(value, bytes) else value["bytes"]


ROWS = [39, 0, 7, 6, 21, 0, 13, 38]


def test_row_groups_that_do_not_fit_are_unpacked_once_and_shared(tables, small_memory, monkeypatch):
    paths = files_of(f"{tables}/labelled-*.parquet")
    expected = [png(pixels(i)) for i in ROWS]
    assert read(ParquetTable(paths), ROWS) == expected
    unpacked = sorted(path.name for path in small_memory.rglob("*.arrow"))
    assert unpacked == ["000000.arrow", "000001.arrow", "000003.arrow", "000005.arrow"]
    assert not [path for path in small_memory.rglob("*") if path.is_file() and path.suffix != ".arrow"]
    # One that is cut off is unpacked anew.
    damaged = next(small_memory.rglob("000003.arrow"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert read(ParquetTable(paths), ROWS) == expected
    # Another reader, or a later run, takes them from there.
    monkeypatch.setattr(row_groups.RowGroups, "_read", None)
    table = ParquetTable(paths)
    assert read(table, ROWS) == expected
    assert "row groups are unpacked as they are read" in table.remarks("image")[0]
    assert str(small_memory) in table.remarks("image")[0]


def test_without_room_to_unpack_row_groups_are_read_again_and_again(tables, small_memory, monkeypatch):
    monkeypatch.setattr(row_groups, "_free", lambda folder: 0)
    table = ParquetTable(files_of(f"{tables}/labelled-*.parquet"))
    assert read(table, ROWS) == [png(pixels(i)) for i in ROWS]
    assert "has no room" in table.remarks("image")[0] and not small_memory.exists()
    groups = table._column_groups("image")
    for number in range(6):
        groups.column(number)
        assert len(groups._held) == 1 and groups._bytes == groups.column(number).nbytes


def test_columns_whose_names_begin_alike_are_unpacked_apart(small_memory, tmp_path):
    names = ["observation.images.front", "observation.images.wrist"]
    columns = {name: [name.encode() * 9 + b" %d" % i for i in range(20)] for name in names}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=5)
    for _ in range(2):
        table = ParquetTable([str(tmp_path / "x.parquet")])
        for name in names:
            assert table.images(name, [17, 3]) == [columns[name][17], columns[name][3]]
    assert len(list(small_memory.rglob("*.arrow"))) == 4
    # What another column's file has under this name is not taken.
    front, wrist = (row_groups.unpacked_folder(table.digest, name) / "000000.arrow" for name in names)
    front.write_bytes(wrist.read_bytes())
    assert ParquetTable([str(tmp_path / "x.parquet")]).images(names[0], [3]) == [columns[names[0]][3]]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_ends_no_run(tables, small_memory, monkeypatch, caplog, number):
    table = ParquetTable(files_of(f"{tables}/labelled-*.parquet"))
    first = ROWS[:1]
    assert read(table, first) == [png(pixels(i)) for i in first]

    def full(*args):
        raise OSError(number, "full")

    monkeypatch.setattr(row_groups.pa, "OSFile", full)
    with caplog.at_level(logging.WARNING):
        assert read(table, ROWS) == [png(pixels(i)) for i in ROWS]
    (record,) = caplog.records
    assert "has no room to unpack them" in record.message and os.strerror(number) in record.message
    assert "has no room" in table.remarks("image")[0]
    assert len(table._column_groups("image")._held) == 1


def test_room_is_needed_for_what_is_missing_only(tables, small_memory, monkeypatch):
    paths = files_of(f"{tables}/labelled-*.parquet")
    read(ParquetTable(paths), list(range(20)))
    total = ParquetTable(paths).image_bytes("image")
    for free, rows, unpacks in (
        (total // 4, range(20), False),
        (total * 3 // 4, range(COUNT), True),
        (0, [], True),
    ):
        monkeypatch.setattr(row_groups, "_free", lambda folder, free=free: free)
        table = ParquetTable(paths)
        assert (table._column_groups("image").unpacked is not None) is unpacks
        read(table, list(rows))


def test_the_bytes_of_columns_with_dots_in_their_names_are_counted(tmp_path):
    images = [{"bytes": bytes(500), "path": "x"}] * 3
    pq.write_table(
        pa.table({"images.front": images, "plain": images, "number": [0, 1, 2]}), tmp_path / "x.parquet"
    )
    table = ParquetTable([str(tmp_path / "x.parquet")])
    assert table.image_bytes("images.front") == table.image_bytes("plain") > 500


def test_what_a_killed_process_has_left_is_removed(tables, small_memory):
    paths = files_of(f"{tables}/labelled-*.parquet")
    read(ParquetTable(paths), ROWS)
    whole = next(small_memory.rglob("000003.arrow"))
    old, new = (whole.with_name(f"000003.arrow.{name}") for name in ("a" * 32, "b" * 32))
    for path in (old, new, whole):
        path.write_bytes(whole.read_bytes())
        if path != new:
            os.utime(path, (0, 0))
    assert read(ParquetTable(paths), ROWS) == [png(pixels(i)) for i in ROWS]
    assert not old.exists() and new.exists() and whole.exists()


def test_what_fits_stays_in_memory(tables, tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path))
    table = ParquetTable(files_of(f"{tables}/labelled-*.parquet"))
    assert read(table, list(range(COUNT))) == [png(pixels(i)) for i in range(COUNT)]
    assert not list(tmp_path.iterdir()) and table.remarks("image") == []
    assert len(table._column_groups("image")._held) == 6


def test_columns_with_a_dictionary_are_texts(tables, tmp_path):
    paths = pa.array([f"photos/{i % 2}.png" for i in range(6)]).dictionary_encode()
    labels = pa.array(["b", None, "a"] * 2).dictionary_encode()
    pq.write_table(pa.table({"path": paths, "label": labels}), tmp_path / "x.parquet")
    source = open_source(f"parquet:{tmp_path}/x.parquet?folder={tables}", "train")
    assert source.class_names == ("a", "b") and source.label_of.tolist() == [1, 0, 1, 0]
    expected = np.stack([pixels(i) for i in (0, 0, 1, 1)])
    assert (source.batch(np.arange(4))["image"] == expected).all()
    same = source.same_images
    assert same[0] == same[1] != same[2] == same[3]
