import json

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
