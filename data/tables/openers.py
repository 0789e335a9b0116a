"""The specs of tables: what each takes. Their libraries are imported when one is opened."""

import os
from typing import Optional

from classact.data.source import DataError, Source
from classact.data.tables.options import TableOptions, register_table


@register_table("parquet")
def open_parquet(argument: str, split: str, *, folder: Optional[str] = None, options: TableOptions) -> Source:
    """`parquet:PATTERN`: a file, a directory of them, or a pattern; all of it for both splits.

    In a pattern `*`, `?` and `[…]` match as in a shell, `{000..099}` and `{a,b}` stand for each.

    Images are bytes of image files, structs of `bytes` and `path` as Hugging Face writes
    them, or paths, which start from `folder`, or else from the files' own directory.
    Labels are whole numbers, named by the file of `classes` or by what Hugging Face has
    written into the schema, or texts. Captions are texts or lists of texts. `columns` says
    which columns are taken where the options do not. See `TableSource` for the rest, and
    `RowGroups` for the memory and the disk that it takes.

    Raises:
        DataError: if there is no file, one is damaged or has other columns, or what
            `table_source` refuses.
    """
    del split
    from classact.data.tables.parquet import ParquetTable, files_of
    from classact.data.tables.source import table_source

    table = ParquetTable(files_of(argument), folder)
    return table_source(f"parquet:{argument}", table, options, "parquet:PATTERN?size=N")


@register_table("csv")
def open_csv(argument: str, split: str, *, folder: Optional[str] = None, options: TableOptions) -> Source:
    """`csv:PATTERN`: comma-separated, with a line of names on top; all of it for both splits.

    Of files, a directory or a pattern as `parquet:` takes them; all have the same columns.

    A column holds paths of images, which start from `folder`, or else from the file's own
    directory; another one captions, or labels: whole numbers, named by the file of
    `classes`, or names. Lines that name the same image are captions of that image. Where the
    options do not say, `columns` says which columns are taken: OpenCLIP's are `filepath` and
    `title`. The columns are held in memory. See `TableSource` for the rest.

    Raises:
        DataError: if the file is missing, damaged or no UTF-8, or what `table_source` refuses.
    """
    del split
    return _open_delimited("csv", argument, ",", folder, options)


@register_table("tsv")
def open_tsv(argument: str, split: str, *, folder: Optional[str] = None, options: TableOptions) -> Source:
    """`tsv:PATTERN`: as `csv:PATTERN`, separated by tabs, which is OpenCLIP's own default."""
    del split
    return _open_delimited("tsv", argument, "\t", folder, options)


@register_table("hf")
def open_hugging_face(
    argument: str,
    use: str,
    /,
    *,
    split: Optional[str] = None,
    config: Optional[str] = None,
    revision: Optional[str] = None,
    options: TableOptions,
) -> Source:
    """`hf:NAME_OR_PATH`: a data set of Hugging Face's library `datasets`.

    That is a name on the hub, a directory that `save_to_disk` has written, or one of files
    that the library knows, such as an image folder or parquet files. It is trained on the
    split `train`, and measured on `validation` or `test` if it has one; with `split`, which may
    be a part such as `train[:10%]`, both are that split. Features say which column holds
    images and which labels, and what these mean. `open_rows` says how long it may block; see
    `TableSource` for the rest.

    Raises:
        DataError: if the library is not installed (`pip install classact[hf]`), there is no
            such data set, the hub cannot be reached, or what `table_source` refuses.
    """
    from classact.data.tables.hugging_face import open_rows
    from classact.data.tables.source import table_source

    if not argument:
        raise DataError("data source 'hf' needs a name or a directory: hf:NAME_OR_PATH")
    table, has_splits = open_rows(argument, use, split, config, revision)
    source = table_source(f"hf:{argument}", table, options, "hf:NAME_OR_PATH?size=N")
    source.has_splits = has_splits
    return source


@register_table("python")
def open_python(argument: str, split: str, *, options: TableOptions) -> Source:
    """`python:package.module:function` or `…:function:ARGUMENT`: an object with a length and items.

    The function takes ARGUMENT if there is one, and `split` ("train" or "eval") if it has
    such a parameter; otherwise its object is all for both splits. It returns an object
    whose `len()` is known and whose item i is always the same: see `ItemSource`.

    Raises:
        DataError: if there is no such function, it fails, or what `ItemSource` refuses.
    """
    from classact.data.tables.items import ItemSource
    from classact.data.tables.users_objects import call

    items, has_splits = call("python", argument, split)
    source = ItemSource(f"python:{argument}", items, options, "python:MODULE:FUNCTION?size=N")
    source.has_splits = has_splits
    return source


@register_table("grain")
def open_grain(argument: str, split: str, *, options: TableOptions) -> Source:
    """`grain:package.module:function`: as `python:`, of a Grain `MapDataset`.

    It is neither batched nor repeated. Elements that a `filter` of it takes out count as
    damaged: `damaged` must be at least their share.

    Raises:
        DataError: if Grain is not installed (`pip install classact[grain]`), or it is another
            data set, or what `open_python` refuses.
    """
    from classact.data.tables.items import ItemSource
    from classact.data.tables.users_objects import call, check_grain

    items, has_splits = call("grain", argument, split)
    check_grain(argument, items)
    source = ItemSource(f"grain:{argument}", items, options, "grain:MODULE:FUNCTION?size=N")
    source.has_splits = has_splits
    return source


def _open_delimited(
    kind: str, argument: str, separator: str, folder: Optional[str], options: TableOptions
) -> Source:
    from classact.data.tables.delimited import DelimitedTable
    from classact.data.tables.parts import files_of
    from classact.data.tables.source import table_source

    ending = f".{kind}"
    paths = files_of(kind, argument, lambda path: ending in os.path.basename(path), f"*{ending}")
    table = DelimitedTable(kind, paths, separator, folder, options)
    return table_source(f"{kind}:{argument}", table, options, f"{kind}:PATTERN?size=N")
