"""The rows of parquet files, whose images are read a row group at a time."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classact.data import digests
from classact.data.samples import evenly
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables import parts
from classact.data.tables.parts import images_folder, is_text, reason
from classact.data.tables.row_groups import RowGroups
from classact.data.tables.table import Table

# Each row group that is looked into is read as a whole.
_PROBED_GROUPS = 4
_PROBED_ROWS = 16
_FOOTER = 1 << 16
_METADATA = b"huggingface"


def files_of(argument: str) -> list[str]:
    """The files of an argument, sorted; DataError if there are none."""
    return parts.files_of("parquet", argument, lambda path: path.endswith(".parquet"), "*.parquet")


class _Part(NamedTuple):
    """One file.

    Attributes:
        path: where it is.
        rows: of each of its row groups.
        bytes_of: of each top-level column, without compression.
    """

    path: str
    rows: list[int]
    bytes_of: Mapping[str, int]


class ParquetTable(Table):
    """Parquet files of the same columns, one behind the other; see `Table`.

    Args:
        paths: the files, in order.
        folder: where relative paths of images start; None: in the directory of the first file.

    Raises:
        DataError: if a file cannot be read, or has other columns than the first.
    """

    def __init__(self, paths: Sequence[str], folder: Optional[str] = None) -> None:
        self.where = shown(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        self.folder = images_folder(folder, paths[0])
        self._parts: list[_Part] = []
        schema = None
        footers = hashlib.blake2b(digest_size=16)
        for path in paths:
            part, found = _read_footer(path)
            schema = found if schema is None else schema
            if found.names != schema.names or found.types != schema.types:
                raise DataError(
                    f"{shown(path)}: columns {_columns(found)}, expected those of {shown(paths[0])}: "
                    f"{_columns(schema)}"
                )
            self._parts.append(part)
            footers.update(_tail(path))
        assert schema is not None  # There is a file.
        self.types = dict(zip(schema.names, schema.types, strict=True))
        self.known, self.class_names = _of_hugging_face(schema)
        rows = [
            (part.path, group, count)
            for part in self._parts
            for group, count in enumerate(part.rows)
            if count
        ]
        self.num_rows = sum(count for _, _, count in rows)
        self._places = digests.places_of(paths)
        self._footers = footers.hexdigest()
        self._groups = [(path, group) for path, group, _ in rows]
        self._starts = np.cumsum([0, *(count for _, _, count in rows)])
        self._read: dict[str, RowGroups] = {}

    @functools.cached_property
    def digest(self) -> str:
        """See `Table`; of names, sizes and the files' descriptions of themselves."""
        return digests.of_places(self._places, [self._footers])

    def column(self, name: str) -> pa.ChunkedArray:
        """See `Table`; reads it from all files."""
        read = []
        for part in self._parts:
            try:
                read.append(pq.ParquetFile(part.path).read(columns=[name]).column(name))
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"{shown(part.path)}: column {name!r} cannot be read ({reason(error)})"
                ) from error
        return pa.chunked_array([chunk for column in read for chunk in column.chunks], self.types[name])

    def paths(self, name: str) -> Optional[pa.ChunkedArray]:
        """See `Table`."""
        return self.column(name) if is_text(self.types[name]) else None

    def images(self, name: str, rows: Sequence[int]) -> list[Any]:
        """See `Table`; each row group that is needed is read once."""
        numbers = np.asarray(rows, np.int64)
        group_of = np.searchsorted(self._starts, numbers, side="right") - 1
        values: list[Any] = [None] * len(rows)
        for group in np.unique(group_of).tolist():
            column = self._column_groups(name).column(group)
            for place in np.flatnonzero(group_of == group).tolist():
                values[place] = column[int(numbers[place] - self._starts[group])].as_py()
        return values

    def image_bytes(self, name: str) -> int:
        """See `Table`."""
        return sum(part.bytes_of.get(name, 0) for part in self._parts)

    def probes(self) -> np.ndarray:
        """See `Table`; of a few row groups."""
        return np.concatenate(
            [
                self._starts[group] + evenly(int(self._starts[group + 1] - self._starts[group]), _PROBED_ROWS)
                for group in evenly(len(self._groups), _PROBED_GROUPS).tolist()
            ]
        )

    def remarks(self, name: str) -> list[str]:
        """See `Table`."""
        return self._column_groups(name).remarks()

    def _column_groups(self, name: str) -> RowGroups:
        if name not in self._read:
            self._read[name] = RowGroups(self._groups, name, self.image_bytes(name), self.digest)
        return self._read[name]


def _read_footer(path: str) -> tuple[_Part, pa.Schema]:
    try:
        with pq.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{shown(path)}: no parquet file that can be read ({reason(error)})") from error
    bytes_of: dict[str, int] = {}
    names = set(schema.names)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for group in groups:
        for number in range(group.num_columns):
            column = group.column(number)
            name = _column_of(column.path_in_schema, names)
            bytes_of[name] = bytes_of.get(name, 0) + column.total_uncompressed_size
    return _Part(path, [group.num_rows for group in groups], bytes_of), schema


def _column_of(path: str, names: set[str]) -> str:
    """The column that a path in a parquet schema is in; columns too may have dots in their names."""
    name = path
    while name not in names and "." in name:
        name = name.rpartition(".")[0]
    return name


def _tail(path: str) -> bytes:
    """The end of a file, where a parquet file describes itself."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _FOOTER))
        return file.read()


def _of_hugging_face(schema: pa.Schema) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What Hugging Face's library has written of a schema's columns: (by role, names of classes)."""
    try:
        written = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))
        features = written.get("info", {}).get("features", {})
        kinds = {name: feature.get("_type") for name, feature in features.items() if name in schema.names}
        names = {name: list(features[name]["names"]) for name, kind in kinds.items() if kind == "ClassLabel"}
    except (ValueError, AttributeError, KeyError, TypeError):  # Not of that library, or of another version.
        return {}, {}
    return {
        "image": [name for name, kind in kinds.items() if kind == "Image"],
        "label": list(names),
    }, names


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
