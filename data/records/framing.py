"""TFRecord files: records one behind the other, each with its length and checksums.

Written from TensorFlow's `record_writer.h`: a record is its length uint64, the checksum of
that uint32, the content, the checksum of that uint32; all little-endian. A checksum is
CRC-32C, rotated and added to, as checksums of what contains checksums are weak.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Optional, Union

import google_crc32c

from classact.data.records.shards import Record, Shards
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables.parts import reason

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
BAD_SUM = "a record whose checksum does not fit"
LAST = "a record whose checksum does not fit, the last that was found in its file"
CUT_OFF = "a record that is cut off"

_MASK = 0xA282EAD8
_COMPRESSED = {b"\x1f\x8b": "gzip", b"x\x9c": "zlib", b"\x78\x01": "zlib", b"x\xda": "zlib"}
# No record has 4 GiB: the upper half of its length is zero. What is all zeros is no header, and is
# passed fast.
_LIKE_HEADER = re.compile(rb"(?=.{4}\0{4}(?!\0{4}).{4})", re.DOTALL)
# Behind a damaged length, the next record is looked for in blocks of so many bytes.
_SEARCHED = 1 << 20


def checksum(content: bytes) -> int:
    """The checksum of a content, as TFRecord files have it."""
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


class TFRecords(Shards):
    """TFRecord files without compression; the place of a record is the offset of its content.

    A record whose content is damaged is told by its checksum. Where a length is
    damaged, reading goes on at the next one that fits its checksum, wherever it is in the
    file: what lies between counts as one. A file that ends in the middle of a record is refused.
    """

    kind = "tfrecord"
    endings = (".tfrecord", ".tfrec")

    def scan(self, path: str) -> Iterator[Record]:
        """See `Shards.scan`; reads the whole file, and compares all checksums."""
        try:
            with open(path, "rb", buffering=1 << 20) as file:
                yield from _records(file, path, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise DataError(f"{shown(path)}: cannot be read ({reason(error)})") from error

    def name(self, path: str, place: int) -> str:
        """See `Shards.name`."""
        return f"{shown(path)}, the record at byte {place}"

    def read(self, path: str, places: Sequence[int], sizes: Sequence[int]) -> list[Union[bytes, OSError]]:
        """See `Shards.read`; compares checksums again, as disks go bad."""
        found: list[Union[bytes, OSError]] = []
        with open(path, "rb", buffering=0) as file:
            for place, size in zip(places, sizes, strict=True):
                read = os.pread(file.fileno(), size + FOOTER.size, place)
                whole = len(read) == size + FOOTER.size
                content = read[:size]
                if whole and FOOTER.unpack_from(read, size)[0] == checksum(content):
                    found.append(content)
                else:
                    found.append(OSError(BAD_SUM if whole else CUT_OFF))
        return found


def _records(file: BinaryIO, path: str, end: int) -> Iterator[Record]:
    place, any_fits = 0, False
    while place < end:
        size = _size_at(file, place, end)
        if size is None and not any_fits:
            _refuse(file, path)
        if size is None and end - place < HEADER.size:
            raise _cut_off(path, place)
        if size is None:
            following = _next_header(file, place + 1, end)
            yield Record(place, 0, None, LAST if following == end else BAD_SUM)
            place = following
            continue
        any_fits = True
        start = place + HEADER.size
        if start + size + FOOTER.size > end:
            raise _cut_off(path, place)
        place = start + size + FOOTER.size
        file.seek(start)
        content, footer = file.read(size), file.read(FOOTER.size)
        fits = footer == FOOTER.pack(checksum(content))
        yield Record(start, size, content if fits else None, "" if fits else BAD_SUM)


def _size_at(file: BinaryIO, place: int, end: int) -> Optional[int]:
    """The size of the record whose header is at a place; None if there is no header."""
    if place + HEADER.size > end:
        return None
    file.seek(place)
    header = file.read(HEADER.size)
    return _size_in(header, 0) if len(header) == HEADER.size else None


def _size_in(header: bytes, offset: int) -> Optional[int]:
    size, expected = HEADER.unpack_from(header, offset)
    return size if checksum(header[offset : offset + 8]) == expected else None


def _next_header(file: BinaryIO, place: int, end: int) -> int:
    """Where the next header is that fits its checksum; `end` if there is none."""
    while end - place >= HEADER.size:
        file.seek(place)
        read = file.read(min(end - place, _SEARCHED))
        for found in _LIKE_HEADER.finditer(read):
            if _size_in(read, found.start()) is not None:
                return place + found.start()
        if len(read) < HEADER.size:
            return end
        # A header may begin in this block and end in the next.
        place += len(read) - HEADER.size + 1
    return end


def _cut_off(path: str, place: int) -> DataError:
    return DataError(
        f"{shown(path)}: cut off: it ends in the middle of the record that begins at byte {place}; "
        "copy it anew"
    )


def _refuse(file: BinaryIO, path: str) -> None:
    """Says what a file is that does not begin with a record."""
    file.seek(0)
    head = file.read(2)
    if head in _COMPRESSED:
        raise DataError(
            f"{shown(path)}: compressed ({_COMPRESSED[head]}), so that records cannot be read in any "
            "order: unpack it first, for instance by gunzip"
        )
    raise DataError(f"{shown(path)}: no TFRecord file, or a damaged one: it does not begin with a record")
