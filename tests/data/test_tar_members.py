import io
import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.left_out import LeftOut
from classact.data.source import DataError
from classact.data.tar_members import members_of


def write_tar(path, members, **options):
    with tarfile.open(path, "w", **options) as file:
        for name, content in members:
            made = tarfile.TarInfo(name)
            made.size = len(content)
            file.addfile(made, io.BytesIO(content))
    return path


def test_a_shard_that_is_cut_off_is_refused_by_name_wherever_it_ends(tmp_path):
    whole = write_tar(tmp_path / "a.tar", [("1.png", bytes(700)), ("1.txt", b"text")]).read_bytes()
    end = whole.rindex(b"text") + 512
    for length in sorted({0, 100, 512, 513, *range(1024, end, 512), end - 1, end - 506}):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.tar: (empty|cut off|not a tar file)"):
            list(members_of(tmp_path / "cut.tar"))


@pytest.mark.parametrize(("length", "said"), [(0, "empty"), (1200, "cut off at byte 1200")])
def test_where_a_shard_ends_is_said(tmp_path, length, said):
    whole = write_tar(tmp_path / "a.tar", [("1.txt", bytes(600))]).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:length])
    with pytest.raises(DataError, match=rf"a\.tar: {said}; a tar file ends with"):
        members_of(tmp_path / "a.tar")


LETTERS = "abcdefgh/é\udce9"


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text(LETTERS, max_size=300), max_size=6),
    sizes=st.lists(st.integers(0, 1500), min_size=6, max_size=6),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_members_are_those_of_the_standard_library(tmp_path_factory, names, sizes, form):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    names = [name.strip("/") + ".png" for name in names]
    contents = [bytes([i]) * size for i, size in enumerate(sizes[: len(names)])]
    write_tar(path, list(zip(names, contents, strict=True)), format=form)
    with tarfile.open(path) as file:
        expected = [(m.name, m.offset_data, m.size) for m in file.getmembers()]
    members = list(members_of(path))
    assert [(m.name, m.offset, m.size) for m in members] == expected
    assert [m.open().read() for m in members] == contents


@pytest.mark.parametrize("records", [b"0 path=x\n", b"-5 path=x\n", b"2 path=x\n", b"path=x\n"])
def test_extended_headers_that_are_none_end_the_reading(tmp_path, records):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf() + records.ljust(512, b"\0") + bytes(1024))
    with pytest.raises(DataError, match=r"a\.tar: damaged in a member's extended header"):
        list(members_of(path))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_names_of_more_than_a_megabyte_are_not_read(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 31
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 512 + (1 << 31) + 1024)  # Of holes.
    with pytest.raises(DataError, match=r"a\.tar: damaged at byte 0: a name of 2147483648 bytes"):
        list(members_of(path))


def header(name, size=0, kind=tarfile.REGTYPE, link="", form=tarfile.GNU_FORMAT, **pax):
    """A member's header, with what comes before it."""
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname, made.pax_headers = size, kind, link, pax
    return made.tobuf(form)


def members_in(tmp_path, *blocks):
    """(name, offset, size) of each file in a tar file of these blocks, and what is left out."""
    path, left_out = tmp_path / "a.tar", LeftOut()
    path.write_bytes(b"".join(blocks) + bytes(1024))
    members = members_of(path, left_out)
    reasons = {reason: [name.partition(":")[2] for name in names] for reason, _, names in left_out}
    return [(member.name, member.offset, member.size) for member in members], reasons


def test_directories_and_long_names_in_the_older_form(tmp_path):
    long = "p" * 140 + "/" + "n" * 90 + ".png"
    directory = header("d", 512, tarfile.DIRTYPE, form=tarfile.USTAR_FORMAT)
    # In the oldest form, what ends with a slash is one too.
    old = header("e/", kind=tarfile.AREGTYPE, form=tarfile.USTAR_FORMAT)
    members = members_in(tmp_path, directory, old, header(long, form=tarfile.USTAR_FORMAT))
    assert members == ([(long, 3 * 512, 0)], {})


def test_links_are_the_members_that_they_mean(tmp_path):
    a, again = header("./a", 1) + b"a".ljust(512), header("a", 2) + b"bb".ljust(512)
    long = "n" * 150
    members = members_in(
        tmp_path,
        header("ahead", kind=tarfile.SYMTYPE, link="d/to-a"),
        a,
        # GNU's tar writes no size, others the target's, and no content.
        header("hard", 512, kind=tarfile.LNKTYPE, link="a"),
        header("d/to-a", kind=tarfile.SYMTYPE, link="../hard"),
        header("again", kind=tarfile.LNKTYPE, link="d/to-a"),
        again,
        header("new", kind=tarfile.LNKTYPE, link="./a"),
        header(long, 3) + b"ccc".ljust(512),
        header("to-long", kind=tarfile.LNKTYPE, link=long),
        header("to-long-pax", kind=tarfile.LNKTYPE, link=long, form=tarfile.PAX_FORMAT),
        header("loop", kind=tarfile.SYMTYPE, link="loop"),
        header("early", kind=tarfile.LNKTYPE, link="late"),
        header("late", 1) + b"a".ljust(512),
        header("d/outside", kind=tarfile.SYMTYPE, link="../../a"),
    )
    first, second = (1024, 1), (1024 + 512 * 5, 2)
    found = [(name, (offset, size)) for name, offset, size in members[0]]
    assert found[:7] == [
        ("ahead", first), ("./a", first), ("hard", first), ("d/to-a", first), ("again", first), ("a", second),
        ("new", second),
    ]  # fmt: skip
    third = found[7][1]
    assert found[7:-1] == [(long, third), ("to-long", third), ("to-long-pax", third)] and third[1] == 3
    assert found[-1][0] == "late"
    assert members[1] == {"linked to no file in the tar file": ["loop", "early", "d/outside"]}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_above_8_gib_are_read(tmp_path, form):
    size = (8 << 30) + 5
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(header("big", size, form=form))
        start = file.tell()
        file.seek(-(-size // 512) * 512, os.SEEK_CUR)  # A hole.
        file.write(header("small", 1) + b"x".ljust(512) + bytes(1024))
    assert [(m.name, m.offset, m.size) for m in members_of(path)] == [
        ("big", start, size), ("small", start + (8 << 30) + 1024, 1),
    ]  # fmt: skip
    with path.open("r+b") as file:
        file.truncate(start + 512)
    with pytest.raises(DataError, match=r"a\.tar: cut off in the file that begins at byte"):
        members_of(path)


@pytest.mark.parametrize("size", [b"-5", b"1e9", b"\xff"])
def test_sizes_that_are_none_end_the_reading(tmp_path, size):
    record = b"%d size=%s\n" % (len(size) + 9, size)
    extended = header("x", len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0")
    with pytest.raises(DataError, match=r"a\.tar: damaged in a member's extended header"):
        members_in(tmp_path, extended, header("a.png", 1), b"x".ljust(512))


def test_sparse_files_are_left_out_and_do_not_hide_what_follows(tmp_path):
    sparse = bytearray(header("gnu", 512, tarfile.GNUTYPE_SPARSE))
    sparse[482] = 1  # The map goes on in a block, and in another one.
    sparse[148:156] = b"%06o\0 " % (sum(sparse[:148]) + 8 * 32 + sum(sparse[156:]))
    sparse += bytes(504) + b"\1" + bytes(7) + bytes(512) + b"content".ljust(512)
    pax = header("GNUSparseFile.0/x", 7, form=tarfile.PAX_FORMAT, **{"GNU.sparse.major": "1"})
    members, reasons = members_in(
        tmp_path, bytes(sparse), pax, b"content".ljust(512), header("a.png", 1), b"x".ljust(512)
    )
    assert [name for name, _, _ in members] == ["a.png"]
    assert reasons == {"stored without its zeros (a sparse file)": ["gnu", "GNUSparseFile.0/x"]}


def test_a_header_for_all_that_follows_says_no_names(tmp_path):
    record = b"11 path=x\n\n"
    everywhere = header("g", len(record), tarfile.XGLTYPE) + record.ljust(512, b"\0")
    members, _ = members_in(tmp_path, everywhere, header("a.png", 1), b"x".ljust(512))
    assert [name for name, _, _ in members] == ["a.png"]


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2"), (b"PK\3\4", "zip")]
)
def test_a_compressed_file_is_refused_however_short_it_is(tmp_path, start, kind):
    for length in (10, 600):
        (tmp_path / "a.tar").write_bytes(start.ljust(length, b"x"))
        with pytest.raises(DataError, match=rf"a\.tar: compressed: unpack it, or .* \({kind} now\)"):
            members_of(tmp_path / "a.tar")
    # It may also be a name.
    (tmp_path / "a.tar").write_bytes(header("BZh.png") + bytes(1024))
    assert [member.name for member in members_of(tmp_path / "a.tar")] == ["BZh.png"]
