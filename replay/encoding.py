"""Requests that insert examples, written without a message object for each.

An example is a chunk of one step and one column, a record, and one item per table that refers to
it. All chunks have the same head but for their key and some lengths, all items of a table but for
two keys and a priority. So a request is templates, filled by numpy for all examples at once, with
the records between them. Lengths and keys have a fixed width in it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from classact.replay import protocol
from classact.replay.varints import KEY_BYTES, LENGTH_BYTES, fixed_width, varint

# Filled in; no byte of a template's own looks like these.
_CHUNK_KEY, _ITEM_KEY = b"\xc1" * 9 + b"\x01", b"\xc2" * 9 + b"\x01"
_PRIORITY = b"PRIORITY"


@dataclasses.dataclass(frozen=True)
class Keys:
    """What names the examples of a request: they keep it when they are sent again.

    Attributes:
        chunks: uint64[n].
        items: uint64[tables, n].
    """

    chunks: np.ndarray
    items: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, tables: int, examples: int) -> "Keys":
        """New keys; two of all that is in a table are the same with a probability of about 1e-12."""
        made = rng.integers(0, 1 << 64, (1 + tables, examples), np.uint64)
        return cls(made[0], made[1:])


class InsertEncoder:
    """Writes the requests of one writer."""

    def __init__(self, record_bytes: int, tables: Sequence[str], episode: int) -> None:
        """Makes the templates.

        Args:
            record_bytes: of an example as it is packed.
            tables: that get an item of each example.
            episode: of the writer; the server counts them.
        """
        shape = _message(2, b"\x08\x01") + _message(2, b"\x08" + varint(record_bytes))
        self._tensor = b"\x08" + varint(protocol.UINT8) + _message(2, shape) + b"\x22"
        self._chunk = b"\x08" + _CHUNK_KEY + _message(2, b"\x08" + varint(episode)) + b"\x30\x01\x2a"
        self._head = np.frombuffer(
            b"\x0a" + _room() + self._chunk + _room() + b"\x0a" + _room() + self._tensor + _room(), np.uint8
        )
        self._items = [_Item(table) for table in tables]

    def __call__(
        self,
        contents: Sequence[bytes | memoryview],
        priorities: np.ndarray,
        keys: Keys,
        prefix: bytes = b"",
        wanted: np.ndarray | None = None,
    ) -> bytes:
        """Returns a request.

        Args:
            contents: each example's record as the table keeps it (`compression`).
            priorities: float64[tables, n].
            keys: of the n examples.
            prefix: of all contents.
            wanted: bool[tables, n], the items to insert; None: all. Each example needs one.
        """
        encoded = fixed_width(keys.chunks, KEY_BYTES)
        heads = memoryview(self._heads(contents, prefix, encoded)).cast("B")
        size = len(self._head) + len(prefix)
        pieces: list[bytes | memoryview] = []
        for index, content in enumerate(contents):
            pieces += (heads[index * size : (index + 1) * size], content)
        for number, item in enumerate(self._items):
            some = slice(None) if wanted is None else np.flatnonzero(wanted[number])
            items = fixed_width(keys.items[number][some], KEY_BYTES)
            pieces.append(item.filled(items, encoded[some], priorities[number][some]).tobytes())
        return b"".join(pieces)

    def _heads(self, contents: Sequence[bytes | memoryview], prefix: bytes, keys: np.ndarray) -> np.ndarray:
        """uint8[n, …]: all of each chunk that comes before its content, with the prefix."""
        sizes = np.fromiter(map(len, contents), np.uint64, len(contents)) + np.uint64(len(prefix))
        head = np.concatenate([self._head, np.frombuffer(prefix, np.uint8)])
        heads = np.empty((len(contents), len(head)), np.uint8)
        heads[:] = head
        # Most have one size, and one row says it all.
        lengths = sizes[:1] if (sizes == sizes[0]).all() else sizes
        at = len(self._head)
        # Each length is that of all that follows it, so from the inside out.
        for own in (0, len(self._tensor), 1, len(self._chunk)):
            at -= LENGTH_BYTES + own
            lengths = lengths + np.uint64(own + (LENGTH_BYTES if own else 0))
            heads[:, at : at + LENGTH_BYTES] = fixed_width(lengths, LENGTH_BYTES)
        key_at = 1 + LENGTH_BYTES + self._chunk.index(_CHUNK_KEY)
        heads[:, key_at : key_at + KEY_BYTES] = keys
        return heads


class _Item:
    """The template of a table's items."""

    def __init__(self, table: str) -> None:
        part = b"\x08" + _CHUNK_KEY + b"\x18\x01"  # One step of the chunk.
        trajectory = _message(1, _message(1, part) + b"\x10\x01")  # One column, without a time axis.
        # The name comes last but one in the search below, whatever it is.
        head = b"\x08" + _ITEM_KEY + _message(2, table.encode()) + b"\x29"
        body = head + _PRIORITY + _message(8, trajectory)
        item = _message(2, body)
        start = len(item) - len(body)
        self._template = np.frombuffer(item, np.uint8)
        self._key_at = start + 1
        self._priority_at = start + len(head)
        self._chunk_at = start + len(head) + 8 + body[len(head) + 8 :].index(_CHUNK_KEY)

    def filled(self, keys: np.ndarray, chunks: np.ndarray, priorities: np.ndarray) -> np.ndarray:
        """uint8[n, …] of n items, from uint8[n, 10] of their encoded keys."""
        block = np.empty((len(keys), len(self._template)), np.uint8)
        block[:] = self._template
        block[:, self._key_at : self._key_at + KEY_BYTES] = keys
        block[:, self._chunk_at : self._chunk_at + KEY_BYTES] = chunks
        as_bytes = np.ascontiguousarray(priorities, "<f8").view(np.uint8).reshape(-1, 8)
        block[:, self._priority_at : self._priority_at + 8] = as_bytes
        return block


def _message(number: int, payload: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return bytes([number << 3 | 2]) + varint(len(payload)) + payload


def _room() -> bytes:
    return bytes(LENGTH_BYTES)
