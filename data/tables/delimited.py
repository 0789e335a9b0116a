"""Text files of comma- or tab-separated values: a line an image, with its path and its caption or label."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables.columns import choose
from classact.data.tables.options import TableOptions
from classact.data.tables.parts import images_folder, reason
from classact.data.tables.table import Table

# Also as programs write them that know no gaps in a column of numbers. A leading zero makes a name of it.
_WHOLE = r"^(-1|0|[1-9][0-9]{0,9})(\.0)?$"


class DelimitedTable(Table):
    """The columns of text files that are needed, in memory, one file behind the other; see `Table`.

    Args:
        kind: of the source.
        paths: the files; each compressed if its ending says so, as `.gz`.
        separator: between the values of a line.
        folder: where relative paths of images start; None: in the first file's directory.
        options: which columns.

    Raises:
        DataError: if a file is missing, empty or damaged, lacks a column, or has others than the first.
    """

    def __init__(
        self, kind: str, paths: Sequence[str], separator: str, folder: Optional[str], options: TableOptions
    ) -> None:
        self.where = shown(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        self.folder = images_folder(folder, paths[0])
        self.known: Mapping[str, Sequence[str]] = {}
        self.class_names: Mapping[str, Sequence[str]] = {}
        files = [_File(kind, path, separator) for path in paths]
        names = files[0].names
        for file in files:
            if file.names != names:
                raise DataError(
                    f"{file.where}: columns {', '.join(file.names)}, expected those of {files[0].where}: "
                    f"{', '.join(names)}"
                )
        given = {"image": options.image, "label": options.label, "caption": options.caption}
        chosen = choose(names, given, {}, self.where)
        wanted = [name for name in chosen if name is not None]
        tables = [file.read(wanted) for file in files]
        self._table = pa.concat_tables(tables)
        self._files = [file.where for file in files]
        self._starts = np.cumsum([0, *(table.num_rows for table in tables)])
        if chosen.label is not None:
            self._number(chosen.label)
        self.num_rows = self._table.num_rows
        # Columns that are not read have no type: nothing asks for it.
        self.types = {name: self._types().get(name, pa.null()) for name in names}

    def row_name(self, row: int) -> str:
        """See `Table`; the file, and the row in it."""
        file = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{self._files[file]}, row {row - int(self._starts[file])}"

    def column(self, name: str) -> pa.ChunkedArray:
        """See `Table`."""
        return self._table.column(name)

    def paths(self, name: str) -> Optional[pa.ChunkedArray]:
        """See `Table`."""
        return self.column(name)

    def images(self, name: str, rows: Sequence[int]) -> list[Any]:
        """See `Table`; a text file has paths alone."""
        return self._table.column(name).take(pa.array(rows)).to_pylist()

    def image_bytes(self, name: str) -> int:
        """See `Table`."""
        return int(self._table.column(name).nbytes)

    def probes(self) -> np.ndarray:
        """See `Table`; `ImageFiles` chooses of files."""
        return np.empty(0, np.int64)

    def _number(self, name: str) -> None:
        """Makes numbers of labels that all are whole numbers."""
        labels = self._table.column(name)
        if pc.all(pc.match_substring_regex(labels, _WHOLE)).as_py():
            place = self._table.schema.get_field_index(name)
            self._table = self._table.set_column(place, name, labels.cast(pa.float64()).cast(pa.int64()))

    def _types(self) -> dict[str, pa.DataType]:
        return {field.name: field.type for field in self._table.schema}


class _File:
    """One text file, of which the first line is read at once."""

    def __init__(self, kind: str, path: str, separator: str) -> None:
        self.where = shown(path)
        self._path = path
        self._parsing = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        try:
            with csv.open_csv(path, parse_options=self._parsing) as file:
                self.names = file.schema.names
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.where}: cannot be read ({reason(error)})") from error
        other, other_kind = ("\t", "tsv") if separator == "," else (",", "csv")
        if len(self.names) == 1 and other in self.names[0]:
            apart = "tabs" if other == "\t" else "commas"
            raise DataError(
                f"{self.where}: its columns are separated by {apart}: say {other_kind}:{self.where}"
            )
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataError(
                f"{self.where}: two columns are called {twice!r}, expected a name of its own for each"
            )

    def read(self, wanted: Sequence[str]) -> pa.Table:
        """Columns of it, as texts; DataError if they cannot be read."""
        converting = csv.ConvertOptions(
            include_columns=wanted,
            # Arrow's guesses would make dates of some names.
            column_types=dict.fromkeys(wanted, pa.string()),
            strings_can_be_null=True,
            # Only what is empty lacks: "NA" or "null" may be a class, or a caption.
            null_values=[""],
        )
        try:
            return csv.read_csv(self._path, parse_options=self._parsing, convert_options=converting)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.where}: cannot be read ({reason(error)})") from error
