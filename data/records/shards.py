"""What a format of records gives: the records of a file, in order and at any place."""

import abc
import os
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, Optional, Union

from classact.data.tables.parts import files_of

# As TensorFlow's tools number shards; such names may have no ending.
_NUMBERED = re.compile(r"-\d{5}-of-\d{5}$")


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        place: by which `Shards.read` finds it.
        size: of its content in bytes.
        content: None if it is damaged.
        problem: what is wrong with it; empty if nothing is.
    """

    place: int
    size: int
    content: Optional[bytes]
    problem: str = ""


class Shards(abc.ABC):
    """Reads the files of one format.

    Attributes:
        kind: what specs call it.
        endings: what names of such files have in them.
    """

    kind: ClassVar[str]
    endings: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def scan(self, path: str) -> Iterator[Record]:
        """All records of a file, in order, also damaged ones; may block on a disk.

        Raises:
            DataError: if the file cannot be read, is cut off, or is of another kind.
        """

    @abc.abstractmethod
    def name(self, path: str, place: int) -> str:
        """What a record is called in errors, so that a person finds it."""

    @abc.abstractmethod
    def read(self, path: str, places: Sequence[int], sizes: Sequence[int]) -> list[Union[bytes, OSError]]:
        """The contents of records, an OSError in place of a damaged one; may block on a disk.

        Args:
            path: the file.
            places: of the records, as `scan` has given them.
            sizes: of the same.

        Raises:
            OSError: if the file cannot be opened.
        """

    def files(self, argument: str) -> list[str]:
        """The files of an argument, sorted; DataError if there are none."""
        return files_of(self.kind, argument, self.is_shard, f"*{self.endings[0]}")

    def is_shard(self, path: str) -> bool:
        """Whether a file in a directory is one of these, by its name."""
        name = os.path.basename(path).lower()
        return any(ending in name for ending in self.endings) or bool(_NUMBERED.search(name))
