"""What the columns of a table hold: labels, captions, paths; and what is left out of them."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classact.data import class_names
from classact.data.left_out import LeftOut
from classact.data.samples import evenly
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables.images import PathColumn, check_local
from classact.data.tables.options import TableOptions
from classact.data.tables.parts import is_text
from classact.data.tables.table import Table
from classact.data.walk import ListedFile

# Of paths so many are tried, to see whether they start from the right place.
_TRIED = 5
_LARGE = 1 << 30


class Texts(NamedTuple):
    """Captions, and the row of each: int64[K]."""

    texts: pa.ChunkedArray
    rows: np.ndarray


def labels_of(table: Table, column: str, options: TableOptions, left_out: LeftOut) -> class_names.Labels:
    """The labels of all rows; DataError for a column of something else, or what `numbered` refuses."""
    kind = table.types[column]
    whole = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not (whole or is_text(kind) or pa.types.is_null(kind)):
        raise DataError(
            f"{table.where}: the labels in {column!r} are {kind}, expected whole numbers, or names"
        )
    where = f"{table.where}, column {column!r}"
    values = _as_texts(table.column(column), where) if is_text(kind) else table.column(column)
    labels = class_names.numbered(values.to_pylist(), where, options.classes, table.class_names.get(column))
    _count(left_out, "without a label", np.flatnonzero(labels.numbers < 0), table)
    return labels


def captions_of(table: Table, column: str, left_out: LeftOut) -> Texts:
    """All captions that are not empty, of a list each; DataError for a column of something else."""
    kind = table.types[column]
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_text(kind.value_type if listed else kind):
        raise DataError(
            f"{table.where}: the captions in {column!r} are {kind}, expected texts or lists of texts"
        )
    texts = _as_texts(table.column(column), f"{table.where}, column {column!r}")
    rows = np.arange(table.num_rows)
    if listed:
        lengths = np.asarray(pc.fill_null(pc.list_value_length(texts), 0))
        _count(left_out, "without a caption", np.flatnonzero(lengths == 0), table)
        rows = np.repeat(rows, lengths)
        texts = _roomy(pc.list_flatten(texts))
    _count(left_out, "without a caption", rows[_rows_where(pc.is_null(texts))], table)
    texts = pc.utf8_trim_whitespace(texts)
    empty = pc.fill_null(pc.equal(texts, ""), False)
    _count(left_out, "with an empty caption", rows[_rows_where(empty)], table)
    kept = pc.and_not(pc.is_valid(texts), empty)
    return Texts(texts.filter(kept), rows[_rows_where(kept)])


def _as_texts(found: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """A column of texts without a dictionary; DataError if one is no UTF-8."""
    try:
        found.validate(full=True)
        kind = found.type
        return _roomy(found.cast(kind.value_type) if pa.types.is_dictionary(kind) else found)
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: {error}; expected texts in UTF-8") from error


def _roomy(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in which some are looked up, of which an Arrow array of the usual kind holds 2 GiB at most."""
    return (
        texts.cast(pa.large_string()) if pa.types.is_string(texts.type) and texts.nbytes > _LARGE else texts
    )


def paths_of(
    table: Table, paths: pa.ChunkedArray, rows: np.ndarray, left_out: LeftOut
) -> tuple[PathColumn, np.ndarray, np.ndarray]:
    """The image files of examples.

    Args:
        table: where they are.
        paths: of all rows.
        rows: int64[M], the row of each example.
        left_out: takes rows without one.

    Returns:
        The files, each once; int64[K], the number of each example's file; and bool[M], which of
        the examples have one.

    Raises:
        DataError: for addresses of the web.
    """
    paths = _as_texts(paths, table.where).take(pa.array(rows))
    missing = np.asarray(pc.fill_null(pc.equal(paths, ""), True))
    _count(left_out, "without an image", rows[missing], table)
    encoded = paths.filter(pa.array(~missing)).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    if len(encoded.dictionary):
        check_local(encoded.dictionary[0].as_py(), table.where)
    shown = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return PathColumn(encoded.dictionary, table.folder), shown, ~missing


def check_folder(table: Table, files: Sequence[ListedFile]) -> None:
    """DataError if images are looked for in the wrong place, which is another thing than damage."""
    tried = [files[number] for number in evenly(len(files), _TRIED).tolist()]
    if tried and not any(os.path.lexists(file.path) for file in tried):
        raise DataError(
            f"{table.where}: {tried[0]} does not exist, nor do others: relative paths start from "
            f"{shown(os.path.abspath(table.folder))}; ?folder=DIRECTORY names another"
        )


def check_images(table: Table, column: str) -> None:
    """DataError unless a column can hold images."""
    kind = table.types[column]
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    fields = {field.name for field in kind} if pa.types.is_struct(kind) else set()
    if not binary and not fields & {"bytes", "path"}:
        raise DataError(
            f"{table.where}: the images in {column!r} are {kind}, expected bytes of image files, "
            "a struct of bytes and path, or paths"
        )


def _rows_where(mask: pa.ChunkedArray) -> np.ndarray:
    return np.flatnonzero(np.asarray(mask))


def _count(left_out: LeftOut, reason: str, rows: np.ndarray, table: Table) -> None:
    if len(rows):
        for row in rows[:3].tolist():
            left_out.add(reason, table.row_name(row))
        if len(rows) > 3:
            left_out.add(reason, "", len(rows) - 3)
