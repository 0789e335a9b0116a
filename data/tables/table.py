"""What a format gives: rows with named columns, of which any can be read at any time."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import pyarrow as pa

from classact.data.left_out import LeftOut


class Table(abc.ABC):
    """Rows with named columns. One thread at a time uses it.

    Attributes:
        where: the file or files, for errors.
        num_rows: how many rows there are.
        types: of the columns, by their names, in order.
        folder: where the paths of images start that are relative.
        known: by role ("image", "label", "caption") the columns that say to be of that kind.
        class_names: of the columns that say what their numbers mean.
    """

    where: str
    num_rows: int
    types: Mapping[str, pa.DataType]
    folder: str
    known: Mapping[str, Sequence[str]]
    class_names: Mapping[str, Sequence[str]]

    @property
    def digest(self) -> str:
        """See `Source.digest`, of the files; empty: not known, rows are sampled."""
        return ""

    @abc.abstractmethod
    def column(self, name: str) -> pa.ChunkedArray:
        """The whole of a column of texts or numbers; may block on a disk."""

    @abc.abstractmethod
    def paths(self, name: str) -> Optional[pa.ChunkedArray]:
        """The paths of the images of a column, if they are files of their own; else None."""

    @abc.abstractmethod
    def images(self, name: str, rows: Sequence[int]) -> list[Any]:
        """The values of a column of images, as `images.opened` takes them; may block on a disk."""

    def row_name(self, row: int) -> str:
        """What a row is called in errors and in what is left out."""
        return f"{self.where}, row {row}"

    @abc.abstractmethod
    def image_bytes(self, name: str) -> int:
        """How many bytes a column of images has, without compression."""

    @abc.abstractmethod
    def probes(self) -> np.ndarray:
        """int64[N], rows whose images are read when a source is opened."""

    def count_left_out(self, left_out: LeftOut) -> None:
        """Adds what was found damaged when it was opened, and is no row."""
        del left_out

    def remarks(self, name: str) -> list[str]:
        """What a user should know of how a column of images is read; see `LeftOut.remarks`."""
        del name
        return []
