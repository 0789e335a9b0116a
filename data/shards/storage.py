"""A shard as it lies on a disk: its name, its state, its bytes."""

import os
import pathlib
from typing import Any, BinaryIO, Optional, Protocol

from classact.data.left_out import LeftOut
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tar_members import TarMember, members_of


class Shard(Protocol):
    """A tar file; `str` is its name as a person finds it.

    Attributes:
        path: the path or URL.
        is_local: whether its bytes can be read at any place at once.
    """

    path: str

    @property
    def is_local(self) -> bool:
        """See the class."""

    def stamp(self) -> list[Any]:
        """What changes when the file does, as JSON has it: its size first. May ask a server.

        Raises:
            DataError: if it is not there.
        """

    def open(self) -> BinaryIO:
        """Its bytes: a file of a disk, with its path as `name`. It may have to be fetched, which blocks.

        Raises:
            DataError: if it cannot be fetched.
            OSError: if it cannot be read.
        """

    def expect(self) -> None:
        """Begins to fetch it, where that is needed; does not block. What fails is said when it is opened."""

    def sibling(self, name: str) -> "Shard":
        """Another file beside it."""


class LocalShard:
    """See `Shard`."""

    is_local = True

    def __init__(self, path: str) -> None:
        self.path = path

    def stamp(self) -> list[Any]:
        """See `Shard.stamp`: the size in bytes, and when it was changed, in nanoseconds."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise DataError(f"{self}: cannot be read ({error.strerror})") from error
        return [status.st_size, status.st_mtime_ns]

    def open(self) -> BinaryIO:
        """See `Shard.open`."""
        return open(self.path, "rb")

    def expect(self) -> None:
        """See `Shard.expect`; nothing."""

    def sibling(self, name: str) -> "LocalShard":
        """See `Shard.sibling`."""
        return LocalShard(os.path.join(os.path.dirname(self.path), name))

    def __str__(self) -> str:
        return shown(self.path)


def members_in(shard: Shard, file: BinaryIO, left_out: Optional[LeftOut] = None) -> list[TarMember]:
    """The files in a shard that is open, as `members_of` finds them; errors name the shard."""
    try:
        return members_of(pathlib.Path(file.name), left_out)
    except DataError as error:
        raise DataError(str(error).replace(file.name, str(shard))) from error


def opened(shard: Shard) -> BinaryIO:
    """As `Shard.open`, where a shard that cannot be read ends all: DataError names it."""
    try:
        return shard.open()
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror or error})") from error
