"""The files in a tar file: where each lies, so that any of them can be read at any time."""

import dataclasses
import io
import pathlib
import posixpath
from typing import BinaryIO, Optional

from classact.data.left_out import LeftOut
from classact.data.shown import shown
from classact.data.source import DataError

_BLOCK = 512
_END = bytes(_BLOCK)
_MARK = b"ustar"
_FILES = (b"0", b"\0", b"7")
_HARD_LINK, _SYMBOLIC_LINK, _SPARSE = b"1", b"2", b"S"
# Links, devices, directories and pipes: their size, if they have one, is not that of something behind them.
_WITHOUT_CONTENT = (_HARD_LINK, _SYMBOLIC_LINK, b"3", b"4", b"5", b"6")
# What GNU's and POSIX's form say of the next member; the last is for all that follow, and says no names.
_LONG_NAME, _LONG_LINK, _PAX_HEADERS, _GLOBAL_HEADER = b"L", b"K", (b"x", b"X"), b"g"
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, *_PAX_HEADERS)
# Of what says a member's name, so that a damaged or hostile size does not fill the memory.
_MAX_NAME_BYTES = 1 << 20
_MAX_LINKS = 40
# How much behind the end is looked at: tar fills up to 10 KiB, other programs more.
_LOOKED_AT = 1 << 20
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
    b"PK\3\4": "zip",
}


@dataclasses.dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar file: where its `size` bytes are; `str` is its name as a person can read it.

    The name is the bytes in the tar file, those that are no UTF-8 as surrogates
    (`surrogateescape`): different names stay different.
    """

    path: pathlib.Path
    name: str
    offset: int
    size: int

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The member's bytes; OSError if they are no longer all there."""
        del mode
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) != self.size:
            raise OSError(f"only {len(content)} of {self.size} bytes are left")
        return io.BytesIO(content)

    def __str__(self) -> str:
        return shown(f"{self.path}:{self.name}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Link:
    """A link, and the name of the member that it means."""

    name: str
    target: str
    symbolic: bool


def members_of(path: pathlib.Path, left_out: Optional[LeftOut] = None) -> list[TarMember]:
    """The files in a tar file, in order; several times as fast as the module `tarfile`.

    Names longer than the header's field and sizes above 8 GiB are read in both of
    their common forms, GNU's and POSIX's. A hard link is the member before it that
    it names, a symbolic link the member, at any place, that it points to.

    Args:
        path: the tar file, not compressed.
        left_out: counts links to something else, and files that are stored without their zeros.

    Raises:
        DataError: if the file is missing, no tar file, compressed, or cut off.
    """
    left_out = LeftOut() if left_out is None else left_out
    try:
        content = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    found: list[TarMember | _Link] = []
    with content as file:
        end = path.stat().st_size
        offset, said = 0, dict[bytes, bytes]()
        while (header := _block(file, offset)) != _END:
            size, kind = _parse(path, header, offset)
            if said:
                size = _said_size(path, said, size)
            start = offset + _BLOCK
            if kind == _SPARSE:
                start = _behind_sparse_map(file, header, start)
            elif kind in _WITHOUT_CONTENT:
                size = 0
            if start + size > end:
                raise DataError(f"{path}: cut off in the file that begins at byte {offset}")
            if kind in _EXTENSIONS:
                said |= _extension(path, file, kind, size, offset)
            elif kind != _GLOBAL_HEADER:
                name = _decoded(said[b"path"] if b"path" in said else _name(header))
                if kind in (_HARD_LINK, _SYMBOLIC_LINK):
                    target = _decoded(said.get(b"linkpath") or header[157:257].rstrip(b"\0"))
                    found.append(_link(name, target, kind == _SYMBOLIC_LINK))
                elif kind == _SPARSE or _is_sparse(said):
                    left_out.add("stored without its zeros (a sparse file)", TarMember(path, name, 0, 0))
                # In the oldest form the name alone tells a directory.
                elif kind in _FILES and not name.endswith("/"):
                    found.append(TarMember(path, name, start, size))
                said = {}
            offset = start + -(-size // _BLOCK) * _BLOCK
        if any(file.read(_LOOKED_AT)):
            left_out.add("with more behind its end, as when tar files are joined by cat", shown(str(path)))
    return _resolved(path, found, left_out)


def _block(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(_BLOCK)


def _decoded(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _parse(path: pathlib.Path, header: bytes, offset: int) -> tuple[int, bytes]:
    """(size, type) of a member; DataError unless the block can be a header."""
    try:
        # Only the oldest form has no mark. Its sum takes far longer, and counts its own field as spaces.
        right = header[257:262] == _MARK or (
            int(header[148:156].strip(b" \0"), 8) == sum(header) - sum(header[148:156]) + 8 * 0x20
        )
        size = _number(header[124:136])
    except ValueError:
        right = False
    if right and size >= 0 and len(header) == _BLOCK:
        return size, header[156:157]
    for magic, kind in _COMPRESSED.items():
        if not offset and header.startswith(magic):
            raise DataError(
                f"{path}: compressed: unpack it, or write it anew without compression ({kind} now): "
                "pairs are read at any place of a tar file"
            )
    if len(header) < _BLOCK:
        end = path.stat().st_size
        found = f"cut off at byte {end}" if end else "empty"
        raise DataError(f"{path}: {found}; a tar file ends with a block of zeros")
    raise DataError(f"{path}: not a tar file, or damaged at byte {offset}")


def _number(field: bytes) -> int:
    # GNU's form has numbers that do not fit in octal digits as bytes, behind a mark.
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _name(header: bytes) -> bytes:
    name = header[:100].rstrip(b"\0")
    # GNU's form has other things in the prefix's place, and a space behind the mark.
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == _MARK + b"\0" else b""
    return prefix + b"/" + name if prefix else name


def _extension(path: pathlib.Path, file: BinaryIO, kind: bytes, size: int, offset: int) -> dict[bytes, bytes]:
    """What a member says of the next one, by POSIX's names."""
    if size > _MAX_NAME_BYTES:
        raise DataError(f"{path}: damaged at byte {offset}: a name of {size} bytes")
    content = file.read(size)
    if kind in _PAX_HEADERS:
        return _pax_records(path, content)
    return {b"path" if kind == _LONG_NAME else b"linkpath": content.rstrip(b"\0")}


def _pax_records(path: pathlib.Path, content: bytes) -> dict[bytes, bytes]:
    """The records `LENGTH key=VALUE`."""
    records = {}
    while content:
        digits = content.partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits):
            raise _damaged(path, content)
        key, _, value = content[:length].partition(b" ")[2].partition(b"=")
        records[key] = value.removesuffix(b"\n")
        content = content[length:]
    # An empty value takes back what a global header says.
    return {key: value for key, value in records.items() if value}


def _damaged(path: pathlib.Path, content: bytes) -> DataError:
    return DataError(f"{path}: damaged in a member's extended header: {content[:20]!r}")


def _said_size(path: pathlib.Path, said: dict[bytes, bytes], size: int) -> int:
    """The size in an extended header, where it is above 8 GiB, else the one that is given."""
    digits = said.get(b"size")
    if digits is None:
        return size
    if not digits.isdigit():
        raise _damaged(path, digits)
    return int(digits)


def _is_sparse(said: dict[bytes, bytes]) -> bool:
    return bool(said) and any(key.startswith(b"GNU.sparse") for key in said)


def _behind_sparse_map(file: BinaryIO, header: bytes, start: int) -> int:
    """Where the content of GNU's sparse file begins: its map may fill further blocks."""
    goes_on = header[482]
    while goes_on:
        block = _block(file, start)
        start += _BLOCK
        goes_on = block[504] if len(block) == _BLOCK else 0
    return start


def _link(name: str, target: str, symbolic: bool) -> _Link:
    """A link's target as a member's name: a symbolic one starts from where the link lies."""
    start = posixpath.dirname(name) if symbolic else ""
    return _Link(name, posixpath.normpath(posixpath.join(start, target)), symbolic)


def _resolved(path: pathlib.Path, found: list[TarMember | _Link], left_out: LeftOut) -> list[TarMember]:
    """Puts in place of each link the file that it means; counts those that mean none."""
    if not any(isinstance(entry, _Link) for entry in found):
        return [entry for entry in found if isinstance(entry, TarMember)]
    by_name: dict[str, TarMember | _Link] = {}
    for i, entry in enumerate(found):
        if isinstance(entry, _Link) and not entry.symbolic and entry.target in by_name:
            # Also a symbolic link that is met here is followed below.
            found[i] = entry = dataclasses.replace(by_name[entry.target], name=entry.name)
        by_name[posixpath.normpath(entry.name)] = entry
    members = []
    for entry in found:
        target: Optional[TarMember | _Link] = entry
        for _ in range(_MAX_LINKS):
            if not isinstance(target, _Link):
                break
            target = by_name.get(target.target) if target.symbolic else None
        if isinstance(target, TarMember):
            members.append(dataclasses.replace(target, name=entry.name))
        else:
            left_out.add("linked to no file in the tar file", TarMember(path, entry.name, 0, 0))
    return members
