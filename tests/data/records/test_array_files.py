import os
import sys

import pytest
import record_files

from classact.data.records.array_files import ArrayRecords
from classact.data.source import DataError
from classact.data.specs import open_source

CONTENTS = [os.urandom(3000) for _ in range(40)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.arrayrecord"
    record_files.write_arrayrecords(path, CONTENTS)
    return path


def test_records_are_scanned_in_order_and_read_in_any(path):
    shards = ArrayRecords()
    records = list(shards.scan(str(path)))
    assert [record.content for record in records] == CONTENTS
    assert [(record.place, record.size) for record in records] == [(i, 3000) for i in range(40)]
    assert shards.read(str(path), [39, 0, 0, 17], [3000] * 4) == [CONTENTS[i] for i in (39, 0, 0, 17)]


def test_a_damaged_record_costs_no_other(path):
    content = bytearray(path.read_bytes())
    place = bytes(content).index(CONTENTS[17])
    content[place + 100] ^= 1
    path.write_bytes(content)
    shards = ArrayRecords()
    records = list(shards.scan(str(path)))
    assert [record.content for record in records] == [*CONTENTS[:17], None, *CONTENTS[18:]]
    assert records[17].problem == "a record that its library calls damaged"
    read = shards.read(str(path), [16, 17], [0, 0])
    assert read[0] == CONTENTS[16] and isinstance(read[1], OSError)


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(ArrayRecords, "open_files", 2)
    paths = [tmp_path / f"{i}.arrayrecord" for i in range(4)]
    for i, path in enumerate(paths):
        record_files.write_arrayrecords(path, CONTENTS[i : i + 1])
    shards = ArrayRecords()
    for i in (0, 1, 2, 3, 0, 3):
        assert shards.read(str(paths[i]), [0], [0]) == [CONTENTS[i]]
    assert list(shards._open) == [str(paths[0]), str(paths[3])]


def test_a_file_without_its_index_is_refused(path):
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(DataError, match=r"x.arrayrecord: no ArrayRecord file, or one that is cut off"):
        list(ArrayRecords().scan(str(path)))
    with pytest.raises(DataError, match=r"y.arrayrecord: No such file"):
        list(ArrayRecords().scan(str(path.with_name("y.arrayrecord"))))


def test_without_the_library_the_error_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(DataError, match=r"pip install 'classact\[arrayrecord\]'"):
        open_source(f"arrayrecord:{path}", "train")
