"""A shard as it lies on a disk: its name, its state, its bytes."""

import os
from typing import Any, Protocol

from classact.data.shown import shown
from classact.data.source import DataError


class Shard(Protocol):
    """A tar file; `str` is its name as a person finds it.

    Attributes:
        path: the path or URL.
        is_local: whether its bytes can be read at any place at once.
    """

    path: str
    is_local: bool

    def stamp(self) -> list[Any]:
        """What changes when the file does, as JSON has it: its size first. May ask a server.

        Raises:
            DataError: if it is not there.
        """

    def local(self) -> str:
        """The path of a file with its bytes; it may have to be fetched, which blocks.

        Raises:
            DataError: if it is not there.
            OSError: if it cannot be fetched now.
        """


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

    def local(self) -> str:
        """See `Shard.local`."""
        return self.path

    def __str__(self) -> str:
        return shown(self.path)
