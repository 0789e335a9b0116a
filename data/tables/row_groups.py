"""Row groups of parquet files, unpacked, so that any row can be read at any time."""

import collections
import errno
import hashlib
import logging
import pathlib
import shutil
import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from classact.data.cache_folder import VARIABLE, cache_folder
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables.parts import reason, write_table

# So many bytes of row groups stay in memory, in each reader.
MEMORY = 256 << 20
# How many unpacked files are mapped at once.
_MAPPED = 64
# What is still written changes in less; older files under other names are of processes that died.
_LEFT_SECONDS = 3600
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


class RowGroups:
    """One column of row groups, read as they are needed.

    A row group cannot be read in part, and rows are asked for in any order. So if all of
    them together do not fit into 256 MiB, each is unpacked once into a directory that all
    readers of this machine share, and mapped into memory from there. Where the disk has no
    room for those that are missing, or none is left while one is written, as many as fit stay
    in memory, and the others are read again and again.

    Not thread-safe; several processes may unpack at once.

    Args:
        groups: (file, number) of each.
        column: its name.
        total: bytes of all, without compression.
        digest: of the files: what is unpacked of others is not taken.

    Attributes:
        unpacked: where row groups are unpacked; None if they are not.
    """

    def __init__(self, groups: Sequence[tuple[str, int]], column: str, total: int, digest: str) -> None:
        self._groups = groups
        self._column = column
        self._held: collections.OrderedDict[int, pa.ChunkedArray] = collections.OrderedDict()
        self._bytes = 0
        self._total = total
        self.unpacked = None
        if total > MEMORY:
            folder = unpacked_folder(digest, column)
            _remove_left(folder)
            done = len(list(folder.glob("*.arrow")))
            if _free(folder) >= total * max(0, len(groups) - done) / max(1, len(groups)):
                self.unpacked = folder

    def remarks(self) -> list[str]:
        """Where row groups are unpacked, or that they are read again and again; nothing if they fit."""
        size = f"{self._total / 1e9:.1f} GB"
        if self._total <= MEMORY:
            return []
        if self.unpacked is not None:
            return [f"row groups are unpacked as they are read, {size} in all, into {self.unpacked}"]
        folder = unpacked_folder("", "").parent
        each = self._total / len(self._groups) / 1e6
        return [
            f"row groups of {each:.0f} MB are read anew for almost each image: {folder} has no room to "
            f"unpack them ({size}); make room, or name another directory by {VARIABLE}"
        ]

    def column(self, number: int) -> pa.ChunkedArray:
        """The column of a row group; may block on a disk.

        Raises:
            DataError: if the group is damaged, or cannot be unpacked.
            OSError: if the disk fails.
        """
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        found = self._read(number) if self.unpacked is None else self._mapped(self.unpacked, number)
        self._held[number] = found
        self._bytes += found.nbytes
        while len(self._held) > 1 and (
            len(self._held) > _MAPPED if self.unpacked is not None else self._bytes > MEMORY
        ):
            self._bytes -= self._held.popitem(last=False)[1].nbytes
        return found

    def _read(self, number: int) -> pa.ChunkedArray:
        path, group = self._groups[number]
        try:
            with pq.ParquetFile(path) as file:
                return file.read_row_group(group, columns=[self._column], use_threads=False).column(0)
        except (OSError, pa.ArrowException) as error:
            # What has a number is the disk's doing, and may pass; Arrow's own errors mean a damaged file.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                f"{shown(path)}: row group {group} of column {self._column!r} cannot be read "
                f"({reason(error)})"
            ) from error

    def _mapped(self, folder: pathlib.Path, number: int) -> pa.ChunkedArray:
        path = folder / f"{number:06d}.arrow"
        if path.is_file():
            try:
                return _map(path, self._column)
            except pa.ArrowInvalid:
                # A machine that lost its power may leave half a file.
                _log.warning("%s is damaged and unpacked anew", path)
        found = self._read(number)
        return _map(path, self._column) if self._unpack(path, found) else found

    def _unpack(self, path: pathlib.Path, found: pa.ChunkedArray) -> bool:
        """Writes one row group; whoever does it last replaces the same by the same.

        Returns whether there was room for it. If not, none is unpacked any more.
        """
        table = pa.table({self._column: found})
        try:
            write_table(path, table)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise DataError(
                    f"{path.parent}: a row group cannot be unpacked there ({error.strerror or error}): "
                    f"name another directory by {VARIABLE}"
                ) from error
            self.unpacked = None
            _log.warning("%s (%s)", self.remarks()[0], reason(error))
            return False
        return True


def _map(path: pathlib.Path, column: str) -> pa.ChunkedArray:
    """The column in a file, as it lies there; what is mapped stays so for as long as it is used.

    Raises:
        pa.ArrowInvalid: if the file is damaged, or of another column.
    """
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
        table = file.read_all()
    if table.column_names != [column]:
        raise pa.ArrowInvalid(f"columns {table.column_names}, expected {column!r}")
    return table.column(0)


def unpacked_folder(digest: str, column: str) -> pathlib.Path:
    """Where a column's row groups are unpacked."""
    named = hashlib.blake2b(column.encode(), digest_size=16).hexdigest()
    return cache_folder("parquet") / f"{digest.rpartition(':')[2]}-{named}"


def _remove_left(folder: pathlib.Path) -> None:
    """Removes what processes that died have left half-written; nothing that may still be written."""
    for left in folder.glob("*.arrow.*"):
        try:
            if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                left.unlink()
        except OSError as error:
            # Another reader may have removed it, or it is another user's.
            _log.info("%s stays (%s)", left, reason(error))


def _free(folder: pathlib.Path) -> int:
    """How many bytes are free where a folder would be."""
    while not folder.is_dir():
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
