"""The specs of records: what each takes. Their libraries are imported when one is opened."""

import os
from typing import TYPE_CHECKING, Optional

from classact.data.source import Source
from classact.data.tables.options import TableOptions, register_table

if TYPE_CHECKING:
    # It would import Arrow, which takes a while, for all sources.
    from classact.data.records.shards import Shards


@register_table("tfrecord")
def open_tfrecord(argument: str, split: str, *, options: TableOptions) -> Source:
    """`tfrecord:PATTERN`: a file, a directory of them, or a pattern with `*`; all of it for both splits.

    Records are `tf.train.Example` or maps of msgpack, with the bytes of one image file each.
    Labels are whole numbers, named by the file of `classes`, or texts; captions are texts,
    several in a field are as many examples. `columns` says which fields are taken where the options do
    not. Files are not compressed. See `RecordTable` for what is read when, and `TableSource`.

    Raises:
        DataError: if there is no file, one is of another kind, too many records are damaged, or
            what `table_source` refuses.
    """
    del split
    return _open("tfrecord", argument, options)


@register_table("arrayrecord")
def open_arrayrecord(argument: str, split: str, *, options: TableOptions) -> Source:
    """`arrayrecord:PATTERN`: as `tfrecord:PATTERN`, of ArrayRecord files.

    Raises:
        DataError: if the library is not installed (`pip install classact[arrayrecord]`), or what
            `open_tfrecord` refuses.
    """
    del split
    return _open("arrayrecord", argument, options)


@register_table("tfds")
def open_tfds(
    argument: str,
    use: str,
    /,
    *,
    split: Optional[str] = None,
    folder: Optional[str] = None,
    options: TableOptions,
) -> Source:
    """`tfds:NAME`, `tfds:NAME:CONFIG` or `tfds:DIR`: what TensorFlow Datasets has prepared.

    Names are looked for in `folder`, in `$TFDS_DATA_DIR`, or in `~/tensorflow_datasets`; of several
    versions the newest is taken. It is trained on the split `train`, and measured on
    `validation` or `test` if it has one; with `split` both are that split. What the data set says of
    its features and classes is used. Shards are TFRecord or ArrayRecord files; neither
    TensorFlow nor TensorFlow Datasets is needed.

    Raises:
        DataError: if there is no such data set, split or shard, or what the readers of shards refuse.
    """
    from classact.data.records.prepared import prepared
    from classact.data.records.table import RecordTable
    from classact.data.tables.source import table_source

    found = prepared(argument, use, split, folder)
    table = RecordTable(_shards(found.kind), found.paths, options, found.described)
    source = table_source(f"tfds:{argument}", table, table.options, "tfds:NAME?size=N")
    source.has_splits = found.has_splits
    return source


def _open(kind: str, argument: str, options: TableOptions) -> Source:
    from classact.data.records.table import RecordTable
    from classact.data.tables.source import table_source

    shards = _shards(kind)
    paths = shards.files(argument)
    table = RecordTable(shards, paths, options)
    source = table_source(f"{kind}:{argument}", table, table.options, f"{kind}:PATTERN?size=N")
    folder = os.path.dirname(paths[0])
    if os.path.isfile(os.path.join(folder, "dataset_info.json")):
        source.left_out.remarks.append(
            f"these shards are of a data set that TFDS has prepared: tfds:{folder} takes its splits and names"
        )
    return source


def _shards(kind: str) -> "Shards":
    from classact.data.records.array_files import ArrayRecords
    from classact.data.records.framing import TFRecords

    return TFRecords() if kind == "tfrecord" else ArrayRecords()
