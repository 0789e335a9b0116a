"""An example as one fixed-size record, the unit that the replay stores.

Reverb's cost per item grows with the number of its columns (BUILD_NOTES.md has
the figures), so a batch is packed into `uint8[B, N]` with one copy, and a sampled
batch is read back through views, without one.
"""

from collections.abc import Mapping

import numpy as np

# What the system adds to the fields of a source's batch.
SCORE_FIELDS = (("score", np.dtype(np.float32)), ("scored_step", np.dtype(np.int64)))


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

    def unpack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Reads packed rows back; the arrays are views of `rows`.

        Args:
            rows: uint8[B, num_bytes], contiguous.

        Returns:
            Arrays `[B, ...]` by field.

        Raises:
            ValueError: if the rows have another size than this schema's records.
        """
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self.num_bytes:
            raise ValueError(f"expected uint8[B, {self.num_bytes}], got {rows.dtype}{list(rows.shape)}")
        records = np.ascontiguousarray(rows).view(self._dtype)[:, 0]
        return {name: records[name] for name in self.fields}
