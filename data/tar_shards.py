"""`tar:PATTERN`: image–text pairs in tar shards, as WebDataset lays them out."""

import dataclasses
import glob
import io
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Optional

from classact.data.captioned_files import CaptionedFiles, captions_of
from classact.data.decode import SUFFIXES
from classact.data.image_files import size_and_channels
from classact.data.registry import register_source
from classact.data.source import DataError, Source

_BLOCK = 512
_MARK = b"ustar"
_FILE_TYPES = (b"0", b"\0", b"7")
_LONG_NAME = b"L"
_PAX_HEADER = b"x"
# They say something of the next member too, but not its name.
_OTHER_EXTENSIONS = (b"K", b"g")
# Of what says a member's name, so that a damaged or hostile size does not fill the memory.
_MAX_NAME_BYTES = 1 << 20
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclasses.dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar file: where its `size` bytes are; `str` is its name in errors."""

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
        return f"{self.path}:{self.name}"


@register_source("tar")
def open_tar(argument: str, split: str, *, size: Optional[str] = None, channels: str = "3") -> Source:
    """`tar:PATTERN`, `tar:PATTERN?size=64` or `tar:PATTERN?channels=1`: all of it for both splits.

    PATTERN names the shards: a path, in which `*`, `?` and `[…]` match as in a shell
    and `{000..009}` stands for each number. A shard's images are its members
    `.png`, `.jpg` and `.jpeg`; the captions of an image are the lines of the member
    `.txt` whose name is otherwise the same. See `CaptionedFiles` for the rest.

    Opening reads all shards' headers and captions, tens of thousands of pairs in a
    second, and no images. It holds some 300 bytes a pair.

    Raises:
        DataError: if no shard matches, one is missing, cut off or no tar file, or
            there are no pairs.
    """
    del split
    paths = shard_paths(argument)
    files, captions = [], []
    for path in paths:
        images, texts = _pairs_of(path)
        files += images
        captions += texts
    name = f"tar:{argument}"
    return CaptionedFiles(
        name, files, captions, *size_and_channels("tar", size, channels), "tar:PATTERN?size=N"
    )


def shard_paths(pattern: str) -> list[pathlib.Path]:
    """The files of a pattern, sorted within each of its numbers; DataError if there are none."""
    if not pattern:
        raise DataError("data source 'tar' needs a path: tar:PATTERN")
    paths: list[str] = []
    for expanded in _expand(str(pathlib.Path(pattern).expanduser())):
        matches = sorted(glob.glob(expanded)) or sorted(glob.glob(glob.escape(expanded)))
        if not matches:
            raise DataError(f"{expanded}: no such file")
        paths += matches
    if not paths:
        raise DataError(f"{pattern}: a range without numbers, expected {{FIRST..LAST}}")
    return [pathlib.Path(path) for path in paths]


def _expand(pattern: str) -> Iterator[str]:
    """Replaces each `{000..009}` by the numbers from the first to the last, as wide as the first."""
    pieces = _RANGE.split(pattern)
    ranges = [
        [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        for first, last in zip(pieces[1::3], pieces[2::3], strict=True)
    ]
    for numbers in itertools.product(*ranges):
        filled = itertools.chain.from_iterable(zip(pieces[::3], (*numbers, ""), strict=True))
        yield "".join(filled)


def members_of(path: pathlib.Path) -> Iterator[TarMember]:
    """Yields the files in a tar file, in order; several times as fast as the module `tarfile`.

    Names longer than the header's field are read in both of their common forms,
    GNU's and POSIX's.

    Raises:
        DataError: if the file is missing, no tar file, or cut off.
    """
    try:
        content = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    with content as file:
        end = path.stat().st_size
        offset, long_name = 0, ""
        while True:
            file.seek(offset)
            header = file.read(_BLOCK)
            # A tar file ends with blocks of zeros.
            if len(header) == _BLOCK and not any(header):
                return
            size, kind = _parse(path, header, offset)
            start = offset + _BLOCK
            offset = start + -(-size // _BLOCK) * _BLOCK
            if start + size > end:
                raise DataError(f"{path}: cut off in the file that begins at byte {start - _BLOCK}")
            if kind in (_LONG_NAME, _PAX_HEADER) and size > _MAX_NAME_BYTES:
                raise DataError(f"{path}: damaged at byte {start - _BLOCK}: a name of {size} bytes")
            if kind == _LONG_NAME:
                long_name = file.read(size).rstrip(b"\0").decode(errors="replace")
            elif kind == _PAX_HEADER:
                long_name = _pax_path(path, file.read(size)) or long_name
            elif kind not in _OTHER_EXTENSIONS:
                if kind in _FILE_TYPES:
                    yield TarMember(path, long_name or _name(header), start, size)
                long_name = ""


def _parse(path: pathlib.Path, header: bytes, offset: int) -> tuple[int, bytes]:
    """(size, type) of a member; DataError unless the block can be a header."""
    if len(header) < _BLOCK:
        raise DataError(f"{path}: cut off at byte {offset}, as a tar file ends with a block of zeros")
    try:
        # Only the oldest form has no mark. Its sum takes far longer, and counts its own field as spaces.
        right = header[257:262] == _MARK or (
            int(header[148:156].strip(b" \0"), 8) == sum(header) - sum(header[148:156]) + 8 * 0x20
        )
        size = int(header[124:136].strip(b" \0") or b"0", 8)
    except ValueError:
        right = False
    if not right or size < 0:
        raise DataError(f"{path}: not a tar file, or damaged at byte {offset}")
    return size, header[156:157]


def _name(header: bytes) -> str:
    name = header[:100].rstrip(b"\0")
    # GNU's form has other things in the prefix's place, and a space behind the mark.
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == _MARK + b"\0" else b""
    return (prefix + b"/" + name if prefix else name).decode(errors="replace")


def _pax_path(shard: pathlib.Path, records: bytes) -> str:
    """The path among the records `LENGTH path=VALUE`, or nothing."""
    while records:
        digits = records.partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits):
            raise DataError(f"{shard}: damaged in a member's extended header: {records[:20]!r}")
        key, _, value = records[:length].partition(b" ")[2].partition(b"=")
        if key == b"path":
            return value.rstrip(b"\n").decode(errors="replace")
        records = records[length:]
    return ""


def _pairs_of(path: pathlib.Path) -> tuple[list[TarMember], list[Sequence[str]]]:
    """The images of a shard, in order, and the captions of each."""
    images: list[tuple[str, TarMember]] = []
    texts: dict[str, Sequence[str]] = {}
    members = list(members_of(path))
    with path.open("rb") as file:
        for member in members:
            stem, dot, suffix = member.name.rpartition(".")
            suffix = dot + suffix.lower()
            if suffix == ".txt":
                file.seek(member.offset)
                texts[stem] = captions_of(file.read(member.size))
            elif suffix in SUFFIXES:
                images.append((stem, member))
    return [member for _, member in images], [texts.get(stem, ()) for stem, _ in images]
