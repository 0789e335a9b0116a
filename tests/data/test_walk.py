import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.left_out import LeftOut
from classact.data.source import DataError
from classact.data.walk import ending, files_below, is_junk, reason_of_ending

names = st.text(st.sampled_from("aB-.é0"), min_size=1, max_size=3).filter(lambda name: name.strip("."))
trees = st.recursive(st.none(), lambda below: st.dictionaries(names, below, max_size=5), max_leaves=20)


def build(folder, tree):
    for name, below in tree.items():
        if below is None:
            (folder / name).write_bytes(b"x")
        else:
            (folder / name).mkdir()
            build(folder / name, below)


def below(folder, start="", read=()):
    left_out = LeftOut()
    return files_below(str(folder), start, lambda suffix: suffix != ".no", left_out, set(read)), left_out


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(names, trees, max_size=5))
def test_files_come_in_the_order_of_their_paths(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("tree")
    build(folder, tree)
    # As sources listed them before: a run that goes on must find the same ids.
    expected = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    found, left_out = below(folder)
    assert [pathlib.Path(file.path) for file in found] == expected
    assert [file.relative for file in found] == [str(path.relative_to(folder)) for path in expected]
    assert not left_out.lines()
    assert all(file.size() == 1 and file.open().read() == b"x" for file in found)


def test_a_directory_by_many_paths_is_read_once(tmp_path):
    # Each links to all others: followed blindly, there would be millions of paths.
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
        (tmp_path / name / "own").write_bytes(b"")
        for other in "abcdefghij":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    found, left_out = below(tmp_path)
    assert len(found) == 10
    ((reason, count, _),) = left_out
    assert (reason, count) == ("directories that are read already, by another path", 100)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "to_pipe.png").symlink_to("pipe.png")
    (tmp_path / "nothing.png").symlink_to("gone")
    (tmp_path / "x.no").write_bytes(b"")
    found, left_out = below(tmp_path)
    # A link to nothing may be to a disk that is not there now: to be found damaged, and counted as such.
    assert [file.relative for file in found] == ["nothing.png"]
    assert left_out.lines() == [
        "2 neither files nor directories: pipe.png, to_pipe.png",
        "1 with the ending .no: x.no",
    ]


def test_names_that_are_no_text_are_shown_as_one_line(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9\n.png", "wb"):
        pass
    (file,), _ = below(tmp_path)
    assert str(file) == rf"{tmp_path}/caf\xe9\n.png"
    assert file.size() == 0


def test_a_directory_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none: cannot be listed .No such file"):
        below(tmp_path, "none")


@pytest.mark.parametrize(
    ("name", "junk"),
    [
        *(
            (name, True)
            for name in ("._x.png", ".x", "__MACOSX", "@eaDir", "Thumbs.db", "Desktop.ini", "lost+found")
        ),
        *((name, False) for name in ("x.png", "__init__", "thumbs.png")),
    ],
)
def test_junk(name, junk):
    assert is_junk(name) is junk


@pytest.mark.parametrize(
    ("name", "expected", "reason"),
    [
        ("x.PNG", ".png", "with the ending .png"),
        ("x.tar.gz", ".gz", "with the ending .gz"),
        ("README", "", "without an ending"),
        ("x.", "", "without an ending"),
        ("1.2.840.45", ".45", "with another ending"),
        ("a. long sentence", ". long sentence", "with another ending"),
    ],
)
def test_endings(name, expected, reason):
    assert (ending(name), reason_of_ending(name)) == (expected, reason)
