import gzip

import hypothesis.strategies as st
import numpy as np
import pytest
import record_files
from hypothesis import given, settings

from classact.data.records import framing
from classact.data.records.framing import BAD_SUM, CUT_OFF, LAST, TFRecords, checksum
from classact.data.source import DataError

CONTENTS = st.lists(st.binary(max_size=40), max_size=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("framing") / "x.tfrecord"


@given(content=st.binary(max_size=64))
@settings(max_examples=60, deadline=None)
def test_a_checksum_is_crc32c_rotated_and_added_to(content):
    assert checksum(content) == record_files.checksum(content)


@given(contents=CONTENTS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_records_are_scanned_in_order_and_read_in_any(path, contents, data):
    record_files.write_tfrecords(path, contents)
    records = list(TFRecords().scan(str(path)))
    assert [record.content for record in records] == contents
    order = data.draw(st.permutations(range(len(contents))))
    places, sizes = ([getattr(records[i], name) for i in order] for name in ("place", "size"))
    assert TFRecords().read(str(path), places, sizes) == [contents[i] for i in order]


@given(contents=st.lists(st.binary(max_size=40), min_size=3, max_size=6), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_byte_that_changed_costs_one_record(path, contents, data):
    whole = b"".join(map(record_files.framed, contents))
    # Of a first length that is damaged nothing tells that it is a TFRecord file at all.
    place = data.draw(st.integers(12, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    records = list(TFRecords().scan(str(path)))
    ends = np.cumsum([len(content) + 16 for content in contents])
    hurt = int(np.searchsorted(ends, place, side="right"))
    intact = [record.content for record in records if record.content is not None]
    assert intact == contents[:hurt] + contents[hurt + 1 :]
    of_length = place < ends[hurt] - len(contents[hurt]) - 4
    problem = LAST if of_length and hurt == len(contents) - 1 else BAD_SUM
    assert [record.problem for record in records if record.content is None] == [problem]


@given(contents=st.lists(st.binary(max_size=40), min_size=1, max_size=5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_that_is_cut_off_is_refused_by_name(path, contents, data):
    whole = b"".join(map(record_files.framed, contents))
    end = data.draw(st.integers(12, len(whole)))
    path.write_bytes(whole[:end])
    ends = np.cumsum([len(content) + 16 for content in contents]).tolist()
    if end in ends:
        assert len(list(TFRecords().scan(str(path)))) == ends.index(end) + 1
        return
    start = max([0, *(each for each in ends if each < end)])
    with pytest.raises(DataError, match=rf"x.tfrecord: cut off: .* begins at byte {start}; copy it anew"):
        list(TFRecords().scan(str(path)))


@given(searched=st.integers(12, 60), damage=st.integers(12, 150))
@settings(max_examples=60, deadline=None)
def test_behind_damage_of_any_size_reading_goes_on(path, searched, damage):
    intact = [b"first", b"behind the damage", b"last"]
    first, *rest = map(record_files.framed, intact)
    path.write_bytes(b"".join([first, b"\xff" * damage, *rest]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "_SEARCHED", searched)
        records = list(TFRecords().scan(str(path)))
    assert [record.content for record in records] == [b"first", None, *intact[1:]]
    assert [record.problem for record in records] == ["", BAD_SUM, "", ""]


def test_what_changes_after_it_was_scanned_is_found_when_it_is_read(path):
    record_files.write_tfrecords(path, [b"first", b"second"])
    places, sizes = zip(*[(each.place, each.size) for each in TFRecords().scan(str(path))], strict=True)
    content = path.read_bytes()
    path.write_bytes(content[:13] + b"X" + content[14:-6])
    problems = [str(error) for error in TFRecords().read(str(path), places, sizes)]
    assert problems == [BAD_SUM, CUT_OFF]


def test_what_tensorflow_has_written_is_read(written):
    files = TFRecords().files(f"{written}/bare")
    assert [path.rpartition("/")[2] for path in files] == [
        "train-00000-of-00002", "train-00001-of-00002",
    ]  # fmt: skip
    records = [record for path in files for record in TFRecords().scan(path)]
    assert len(records) == 40 and not any(record.problem for record in records)
    for record in records:
        assert record_files.checksum(record.content) == checksum(record.content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(record_files.framed(b"x"), mtime=0), r"x.tfrecord: compressed \(gzip\).*by gunzip"),
        (b"image,label\n" * 9, "x.tfrecord: no TFRecord file, or a damaged one"),
        (b"short", "x.tfrecord: no TFRecord file, or a damaged one"),
    ],
)
def test_what_is_no_tfrecord_file_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(TFRecords().scan(str(path)))
