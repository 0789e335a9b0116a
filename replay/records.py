"""An example as one fixed-size record, the unit that the replay stores.

Reverb's cost per item grows with the number of its columns (BUILD_NOTES.md has
the figures), so a batch is packed into `uint8[B, N]` with one copy. Who reads puts the parts of
each record where they belong as they arrive (`Records`), so that the images of a batch are one
array, without a copy.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from classact.replay import memory

# What the system adds to the fields of a source's batch.
SCORE_FIELDS = (("score", np.dtype(np.float32)), ("scored_step", np.dtype(np.int64)))


class Places(NamedTuple):
    """Where the parts of a record belong, in the order in which it has them."""

    before: memoryview
    largest: memoryview
    after: memoryview


class Records:
    """Memory for the records of a batch, or a part of it: the largest field apart from the others.

    Attributes:
        others: uint8[n, bytes], of each record all but its largest field, packed.
        largest: uint8[n, bytes], contiguous; it begins at a multiple of `memory.ALIGNED` if
            `RecordCodec.empty` made it, and so does each row whose size is one.
    """

    def __init__(self, others: np.ndarray, largest: np.ndarray, before: int) -> None:
        """Takes the memory.

        Args:
            others: see above.
            largest: see above.
            before: how many bytes of the others come before the largest field.
        """
        self.others, self.largest = others, largest
        self._before = before
        self._of_others, self._of_largest = others.reshape(-1).data, largest.reshape(-1).data

    def __len__(self) -> int:
        return len(self.others)

    def part(self, start: int, stop: int) -> "Records":
        """Some of the rows, in the same memory."""
        return Records(self.others[start:stop], self.largest[start:stop], self._before)

    def places(self, row: int) -> Places:
        """Where the parts of a record belong."""
        width, size = self.others.shape[1], self.largest.shape[1]
        start = row * width
        return Places(
            self._of_others[start : start + self._before],
            self._of_largest[row * size : (row + 1) * size],
            self._of_others[start + self._before : start + width],
        )

    def packed(self) -> np.ndarray:
        """A copy, as `RecordCodec.pack` gives them: uint8[n, bytes]."""
        before, after = np.split(self.others, [self._before], axis=1)
        return np.concatenate([before, self.largest, after], axis=1)


class RecordCodec:
    """Packs a batch into rows of bytes and back, for one data set's schema."""

    def __init__(self, batch: Mapping[str, np.ndarray]) -> None:
        """Takes the schema from a batch.

        Args:
            batch: arrays with a common leading axis; their names, dtypes and
                trailing shapes are the schema, `score` and `scored_step` are
                added to it.
        """
        fields = [(name, array.dtype, array.shape[1:]) for name, array in sorted(batch.items())]
        added = [(name, dtype, ()) for name, dtype in SCORE_FIELDS]
        self._dtype = np.dtype(fields + added)
        # The first one of those that are largest.
        self._largest = max(self.fields, key=lambda name: self._dtype[name].itemsize)
        self._others = np.dtype([field for field in fields + added if field[0] != self._largest])
        # How many bytes of a record come before it.
        earlier = self.fields[: self.fields.index(self._largest)]
        self._before = sum(self._dtype[name].itemsize for name in earlier)

    def with_fields(self, batch: Mapping[str, np.ndarray]) -> "RecordCodec":
        """A codec whose records also have the fields of a batch, of other names."""
        added = {name for name, _ in SCORE_FIELDS}
        own = self.unpack(np.zeros((1, self.num_bytes), np.uint8))
        return RecordCodec({name: array for name, array in own.items() if name not in added} | dict(batch))

    @property
    def num_bytes(self) -> int:
        """Size of one record in bytes."""
        return self._dtype.itemsize

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in the order in which they are stored."""
        return tuple(self._dtype.names or ())

    @property
    def schema(self) -> dict[str, str]:
        """Type and shape of each field of one record, for instance "uint8[28, 28, 1]"."""
        types = {name: self._dtype[name] for name in self.fields}
        return {name: f"{dtype.base}{list(dtype.shape)}" for name, dtype in types.items()}

    def pack(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Packs a batch that has every field of the schema.

        Args:
            batch: arrays `[B, ...]` by field.

        Returns:
            uint8[B, num_bytes].

        Raises:
            ValueError: if a field is missing or unknown, or has another shape
                or a dtype that cannot be cast safely.
        """
        if set(batch) != set(self.fields):
            raise ValueError(f"a record has the fields {sorted(self.fields)}, got {sorted(batch)}")
        size = len(batch["score"])
        records = np.empty(size, self._dtype)
        for name in self.fields:
            array = np.asarray(batch[name])
            expected = self._dtype[name]
            shape = (size, *expected.shape)
            if array.shape != shape or not np.can_cast(array.dtype, expected.base, "same_kind"):
                raise ValueError(
                    f"field {name!r}: expected {expected.base}{list(shape)}, "
                    f"got {array.dtype}{list(array.shape)}"
                )
            records[name] = array
        return records.view(np.uint8).reshape(size, self.num_bytes)

    def blocks(self, size: int) -> memory.Blocks:
        """Memory for the largest fields of many batches."""
        return memory.Blocks(size * self._dtype[self._largest].itemsize)

    def empty(self, size: int, blocks: memory.Blocks | None = None) -> Records:
        """Memory for records that are to be read.

        Args:
            size: how many.
            blocks: of `blocks(size)`; None: new memory.
        """
        width = self._dtype[self._largest].itemsize
        largest = (blocks or self.blocks(size)).get().reshape(size, width)
        return Records(np.empty((size, self._others.itemsize), np.uint8), largest, self._before)

    def taken_apart(self, rows: np.ndarray) -> Records:
        """A copy of packed rows uint8[n, num_bytes], as `unpack` wants them.

        Raises:
            ValueError: if the rows have another size than this schema's records.
        """
        self._check(rows)
        found, before = self.empty(len(rows)), self._before
        behind = before + found.largest.shape[1]
        found.others[:, :before], found.largest[:] = rows[:, :before], rows[:, before:behind]
        found.others[:, before:] = rows[:, behind:]
        return found

    def unpack(self, rows: np.ndarray | Records) -> dict[str, np.ndarray]:
        """Reads packed rows back; the arrays are views of them.

        Args:
            rows: uint8[B, num_bytes], contiguous; or what `empty` has made.

        Returns:
            Arrays `[B, ...]` by field. Of `Records` the largest one is contiguous and aligned.

        Raises:
            ValueError: if the rows have another size than this schema's records.
        """
        if isinstance(rows, np.ndarray):
            self._check(rows)
            records = np.ascontiguousarray(rows).view(self._dtype)[:, 0]
            return {name: records[name] for name in self.fields}
        kind = self._dtype[self._largest]
        others = rows.others.view(self._others)[:, 0]
        largest = rows.largest.view(kind.base).reshape(len(rows), *kind.shape)
        return {name: largest if name == self._largest else others[name] for name in self.fields}

    def _check(self, rows: np.ndarray) -> None:
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self.num_bytes:
            raise ValueError(f"expected uint8[B, {self.num_bytes}], got {rows.dtype}{list(rows.shape)}")
