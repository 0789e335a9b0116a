"""Fashion-MNIST in other formats, each written once, by the library that the format belongs to."""

import io
import os
import pathlib
import struct
import tarfile
from collections.abc import Callable, Iterator
from typing import Optional

import filelock
import msgpack
import numpy as np
from PIL import Image

from classact.data import specs
from classact.data.builtin import FASHION_MNIST_CLASSES
from classact.data.cache_folder import cache_folder
from classact.data.records.framing import FOOTER, HEADER, checksum
from classact.data.source import DataError, Source

_ROWS = 1000
# Another process that writes the same takes less.
_LOCK_SECONDS = 600.0

# What is written: the PNG files and labels of a split in their order.
Examples = Iterator[tuple[bytes, int]]


def open_written(argument: str, split: str, *, source: str = "fashion_mnist", count: str = "") -> Source:
    """`…:open_written:tar`: the examples of a source in their order, in files of a format.

    They are written into `$CLASSACT_DATA/formats` when they are first asked for, which blocks, as another
    process's writing does, up to 10 minutes. PNG keeps grey levels as they are, so a format has the same
    pixels, labels and order as IDX has.

    Args:
        argument: one of `FORMATS`.
        split: "train" or "eval".
        source: of grey images with the classes of Fashion-MNIST.
        count: of the examples of a split that are taken, the first; all if empty.

    Raises:
        DataError: for another format, one whose library is not installed, or if writing takes too long.
    """
    if argument not in FORMATS:
        raise DataError(f"open_written:{argument}: expected one of {', '.join(FORMATS)}")
    file = cache_folder("formats") / f"{source}-{count or 'all'}-{split}.{FORMATS[argument][0]}"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(f"{file}.lock", timeout=_LOCK_SECONDS):
            if not file.exists():
                _write(file, argument, specs.open_source(source, split), int(count) if count else None)
    except filelock.Timeout:
        raise DataError(f"{file}: another process has been writing it for {_LOCK_SECONDS:.0f} s") from None
    names = file.with_suffix(".txt")
    opened = specs.open_source(
        f"{argument}:{file}?channels=1&label={_label(argument)}&classes={names}", split
    )
    # Each split has a file of its own.
    opened.has_splits = True
    return opened


def _label(kind: str) -> str:
    return "cls" if kind == "tar" else "label"


def _write(file: pathlib.Path, kind: str, source: Source, count: Optional[int]) -> None:
    """Writes a file and the names of its classes, whole or not at all."""
    file.with_suffix(".txt").write_text("\n".join(FASHION_MNIST_CLASSES) + "\n")
    partial = file.with_name(f"{file.name}.partial")
    try:
        FORMATS[kind][1](partial, _examples(source, count or source.num_examples))
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _examples(source: Source, count: int) -> Examples:
    for start in range(0, count, _ROWS):
        batch = source.batch(np.arange(start, min(start + _ROWS, count)))
        for pixels, label in zip(batch["image"], batch["label"].tolist(), strict=True):
            content = io.BytesIO()
            Image.fromarray(pixels[..., 0]).save(content, "PNG", compress_level=1)
            yield content.getvalue(), label


def _write_tar(path: pathlib.Path, examples: Examples) -> None:
    with tarfile.open(path, "w") as file:
        for number, (image, label) in enumerate(examples):
            for ending, content in (("png", image), ("cls", str(label).encode())):
                header = tarfile.TarInfo(f"{number:06d}.{ending}")
                header.size = len(content)
                file.addfile(header, io.BytesIO(content))


def _write_parquet(path: pathlib.Path, examples: Examples) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images, labels = zip(*examples, strict=True)
    pq.write_table(pa.table({"image": images, "label": labels}), path, row_group_size=_ROWS)


def _write_tfrecords(path: pathlib.Path, examples: Examples) -> None:
    with path.open("wb") as file:
        for content in map(_record, examples):
            length = struct.pack("<Q", len(content))
            file.write(HEADER.pack(len(content), checksum(length)))
            file.write(content + FOOTER.pack(checksum(content)))


def _write_arrayrecords(path: pathlib.Path, examples: Examples) -> None:
    try:
        from array_record.python.array_record_module import ArrayRecordWriter
    except ImportError as error:
        raise DataError(f"open_written:arrayrecord: {error}: pip install 'classact[arrayrecord]'") from None
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for content in map(_record, examples):
        writer.write(content)
    writer.close()


def _record(example: tuple[bytes, int]) -> bytes:
    return bytes(msgpack.packb({"image": example[0], "label": example[1]}))


# By the name of the source: the files' ending, and what writes one.
FORMATS: dict[str, tuple[str, Callable[[pathlib.Path, Examples], None]]] = {
    "tar": ("tar", _write_tar),
    "parquet": ("parquet", _write_parquet),
    "tfrecord": ("tfrecord", _write_tfrecords),
    "arrayrecord": ("arrayrecord", _write_arrayrecords),
}
