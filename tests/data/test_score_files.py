"""Score files give back what was written, by id, and say what is wrong with them."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data import score_files
from classact.data.score_files import ScoreFileError


def described(folder, **fields):
    folder.mkdir(exist_ok=True)
    (folder / "_scores.json").write_text(json.dumps({"version": 1, **fields}))


def written(folder, ids, losses, part=0):
    columns = {"id": np.array(ids, np.int64), "loss": np.array(losses, np.float32)}
    score_files.write_part(score_files.part_path(folder, part), columns, {"number": part})


@given(
    st.dictionaries(
        st.one_of(st.integers(0, 50), st.integers(0, 2**62)), st.floats(-9, 9, width=32), min_size=1
    ),
    st.lists(st.integers(-1, 60)),
    st.integers(1, 4),
)
def test_losses_are_found_by_id(tmp_path_factory, known, asked, parts):
    folder = tmp_path_factory.mktemp("scores")
    described(folder)
    ids = list(known)
    for part in range(parts):
        written(folder, ids[part::parts], [known[name] for name in ids[part::parts]], part)
    wanted = np.array(asked + ids, np.int64)
    found = score_files.read(folder).losses(wanted)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found, np.array([known.get(name, np.nan) for name in wanted.tolist()], np.float32)
    )


def test_readers_of_a_process_share_what_was_read(tmp_path):
    described(tmp_path)
    written(tmp_path, [0, 1], [1.0, 2.0])
    first = score_files.read(tmp_path)
    assert score_files.read(tmp_path) is first
    del first
    written(tmp_path, [0, 1], [3.0, 2.0])
    assert score_files.read(tmp_path).losses(np.array([0])) == 3.0


def test_files_of_another_tool(tmp_path):
    described(tmp_path)
    table = pyarrow.table(
        {"id": pyarrow.array([3, 1], pyarrow.int32()), "loss": [0.5, 0.25], "note": ["a", "b"]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    np.testing.assert_array_equal(score_files.read(tmp_path).losses(np.array([1, 2, 3])), [0.25, np.nan, 0.5])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "_scores.json").unlink(), "no score files"),
        (lambda folder: (folder / "_scores.json").write_text("{"), "cannot be read"),
        (lambda folder: described(folder, version=2), "version=2, expected 1"),
        (lambda folder: described(folder, complete=False), "has not ended"),
        (lambda folder: described(folder, examples=5), r"hold 4 examples, expected 5"),
        (lambda folder: written(folder, [1, 9], [0, 0], 2), "1 examples are there more than once"),
        (lambda folder: written(folder, [-1], [0], 2), "an id is -1"),
        (
            lambda folder: score_files.part_path(folder, 1).write_bytes(b"PAR1"),
            r"part-000001\.parquet: no column 'id'",
        ),
        (lambda folder: [path.unlink() for path in folder.glob("*.parquet")], "hold 0 examples"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, damage, said):
    folder = tmp_path / "scores"
    described(folder)
    written(folder, [0, 1], [1, 2], 0)
    written(folder, [2, 3], [1, 2], 1)
    damage(folder)
    with pytest.raises(ScoreFileError, match=said) as caught:
        score_files.read(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "table", [{"loss": [1.0]}, {"id": ["a"], "loss": [1.0]}, {"id": [None], "loss": [1.0]}]
)
def test_columns_that_are_no_numbers(tmp_path, table):
    described(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "mine.parquet")
    with pytest.raises(ScoreFileError, match="no column 'id' of numbers"):
        score_files.read(tmp_path)


def test_a_part_is_whole_only_as_what_it_was_written(tmp_path):
    path = score_files.part_path(tmp_path, 3)
    assert not score_files.part_is_whole(path, {"number": 3})
    written(tmp_path, [5, 6, 7], [0, 0, 0], 3)
    assert score_files.part_is_whole(path, {"number": 3})
    assert not score_files.part_is_whole(path, {"number": 4})
    assert score_files.rows(path) == 3
    path.write_bytes(path.read_bytes()[:-20])
    assert not score_files.part_is_whole(path, {"number": 3})


def test_of_a_part_that_cannot_be_written_nothing_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, [1], [1])
    assert list(tmp_path.iterdir()) == []
