"""A source over a table with columns, whatever file the table is in."""

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np
import pyarrow as pa

from classact.data import class_names, duplicates
from classact.data.image_files import DecodingSource, ImageFiles, RowFraming
from classact.data.left_out import LeftOut
from classact.data.samples import evenly
from classact.data.source import Batch, DataError, checked_indices
from classact.data.tables.columns import choose
from classact.data.tables.fields import Texts, captions_of, check_folder, check_images, labels_of, paths_of
from classact.data.tables.images import ImageValues
from classact.data.tables.options import TableOptions
from classact.data.tables.table import Table

# Images of which so many bytes are held altogether are compared, to find copies.
_COMPARED_BYTES = 256 << 20
_COMPARED_AT_ONCE = 256
_SAMPLE = 16


def table_source(name: str, table: Table, options: TableOptions, hint: str) -> "TableSource":
    """Makes a source of a table: chooses its columns, and reads its labels or captions.

    Args:
        name: the source's name, for errors.
        table: the rows.
        options: what the spec says.
        hint: how to tell the source a size, for errors.

    Raises:
        DataError: if a column cannot be told or holds something else, there is no example,
            or what `ImageFiles` refuses.
    """
    if not table.num_rows:
        raise DataError(f"{table.where}: no rows, expected one for each image")
    given = {"image": options.image, "label": options.label, "caption": options.caption}
    chosen = choose(list(table.types), given, table.known, table.where)
    left_out = LeftOut()
    table.count_left_out(left_out)
    labels, texts = None, None
    if chosen.label is not None:
        labels = labels_of(table, chosen.label, options, left_out)
        rows = np.flatnonzero(labels.numbers >= 0)
    else:
        assert chosen.caption is not None  # `choose` has chosen one of the two.
        texts = captions_of(table, chosen.caption, left_out)
        rows = texts.rows
    return TableSource(name, table, chosen.image, rows, labels, texts, options, hint, left_out)


class TableSource(DecodingSource):
    """The rows of a table that have an image and a label or a caption; ids are in the rows' order.

    Labels, captions and paths are held in memory, compactly; images are read as they are
    asked for. An image that cannot be read is found, left out and counted as in `ImageFiles`.
    `table_source` makes it.

    Args:
        name: the source's name, for errors.
        table: where the images are.
        image: the column that holds them.
        rows: int64[M], the row of each example; one with k captions k times.
        labels: of all rows, or None.
        texts: the captions, one for each of `rows`, or None.
        options: what the spec says.
        hint: how to tell the source a size, for errors.
        left_out: what is left out so far.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        image: str,
        rows: np.ndarray,
        labels: Optional[class_names.Labels],
        texts: Optional[Texts],
        options: TableOptions,
        hint: str,
        left_out: LeftOut,
    ) -> None:
        self.name = name
        self.left_out = left_out
        self._table, self._column = table, image
        self._values: Optional[ImageValues] = None
        files: Sequence[Any]
        probes = None
        paths = table.paths(image)
        if paths is not None:
            files, self._shown, kept = paths_of(table, paths, rows, left_out)
            check_folder(table, files)
            rows = rows[kept]
        else:
            check_images(table, image)
            left_out.remarks += table.remarks(image)
            used, self._shown = np.unique(rows, return_inverse=True)
            kept = np.ones(len(rows), bool)
            files = self._values = ImageValues(
                functools.partial(table.images, image), used, table.row_name, table.folder
            )
            probes = np.unique(np.searchsorted(used, table.probes()).clip(max=max(0, len(used) - 1)))
        if not len(rows):
            raise DataError(
                f"{table.where}: no row with all that an example needs: {'; '.join(left_out.lines())}"
            )
        with self._held(probes):
            self._images = ImageFiles(
                table.where, files, options.size, options.channels, hint, left_out, options.damaged, probes
            )
        self.accepted_damage = options.damaged
        self.num_examples = len(rows)
        self.image_shape = self._images.shape
        self.has_splits = False
        self.num_classes = 0
        self._texts = None if texts is None else texts.texts.filter(pa.array(kept)).combine_chunks()
        if labels is not None:
            self.num_classes, self.class_names = labels.num_classes, labels.names
            self.label_of = labels.numbers[rows]
        else:
            self.captioned = True
            self.image_of = self._shown

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of files or sampled rows, and of all labels or captions."""
        if self._values is None:
            return self._images.digest(self._words())
        hashed = hashlib.blake2b(f"{self._table.digest}\0{self._column}".encode(), digest_size=16)
        if not self._table.digest:
            numbers = evenly(len(self._values), _SAMPLE)
            with self._values.held(numbers):
                for number in numbers.tolist():
                    hashed.update(self._content(number))
        for word in self._words():
            encoded = word.encode()
            hashed.update(b"%d\0%b" % (len(encoded), encoded))
        return f"rows:{hashed.hexdigest()}"

    @functools.cached_property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`; None if images in the rows have more than 256 MiB."""
        if self._values is None:
            same = self._images.same()
            return None if same is None else same[self._shown]
        count = len(self._values)
        if count > duplicates.MAX_CANDIDATES or self._table.image_bytes(self._column) > _COMPARED_BYTES:
            return None
        first: dict[bytes, int] = {}
        keys = (
            _key(value)
            for start in range(0, count, _COMPARED_AT_ONCE)
            for value in self._fetched(np.arange(start, min(count, start + _COMPARED_AT_ONCE)))
        )
        numbers = np.fromiter((first.setdefault(key, i) for i, key in enumerate(keys)), np.int64, count)
        return numbers[self._shown]

    def framed_batch(self, indices: np.ndarray, framing: Optional[RowFraming] = None) -> Batch:
        """See `augment.augmented.FramedSource`."""
        indices = checked_indices(indices, self.num_examples)
        numbers = self._shown[indices]
        with self._held(numbers):
            kept, images = self._images.read(numbers, framing)
        ids = indices[kept]
        if self.label_of is not None:
            return {"id": ids, **images, "label": self.label_of[ids]}
        captions = np.empty(len(ids), object)
        captions[:] = self.caption_at(ids)
        return {"id": ids, **images, "caption": captions}

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        if self._texts is None:
            return super().caption_at(indices)
        return list(self._texts.take(pa.array(checked_indices(indices, self.num_examples))).to_pylist())

    def _held(self, numbers: Optional[np.ndarray]) -> contextlib.AbstractContextManager[Any]:
        if self._values is None or numbers is None:
            return contextlib.nullcontext()
        return self._values.held(numbers)

    def _fetched(self, numbers: np.ndarray) -> list[Any]:
        assert self._values is not None
        with self._values.held(numbers) as held:
            return [held[number] for number in numbers.tolist()]

    def _content(self, number: int) -> bytes:
        """The file of an image; nothing if it cannot be read."""
        assert self._values is not None
        try:
            with self._values.opened(number) as file:
                return bytes(file.read())
        except OSError:
            return b""

    def _words(self) -> Iterable[str]:
        """What belongs to the images, in order."""
        if self._texts is not None:
            return (text.as_py() for text in self._texts)
        assert self.label_of is not None
        return map(str, self.label_of.tolist())


def _key(value: Any) -> bytes:
    """Equal for equal images."""
    if isinstance(value, dict):
        content = value.get("bytes")
        value = content if content is not None else value.get("path")
    content = value if isinstance(value, bytes) else f"path {value}".encode(errors="surrogateescape")
    return hashlib.blake2b(content, digest_size=16).digest()
