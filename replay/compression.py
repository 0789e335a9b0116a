"""Records as a table keeps them: Snappy blocks, as Reverb's own clients write and read them.

A block may hold its bytes as they are, which costs nothing but some bytes in front. So each
writer compresses only what becomes smaller by it: icons do, photographs as pixels hardly.
"""

import functools
from collections.abc import Sequence

import cramjam
import numpy as np

from classact.replay.varints import varint

# Compressed records above this part of their size are not worth the time: for the 0.91 that
# photographs come to, a writer spends 1.8 times the time, and the reader 1.4 times.
_WORTHWHILE = 0.8
# Of so many requests one is compressed to see what it comes to.
_TRIED = 64
_FOUR_BYTE_LITERAL = b"\xfc"


class Compressor:
    """Compresses one writer's records, or not."""

    def __init__(self, kind: str, record_bytes: int) -> None:
        """Decides nothing yet.

        Args:
            kind: of `config.COMPRESSIONS`: "snappy" compresses all, "none" nothing, and "auto"
                what becomes small enough by it.
            record_bytes: of each record.
        """
        self._kind = kind
        self._prefix = stored_prefix(record_bytes)
        self._calls = 0
        self._pays = False

    def __call__(self, rows: np.ndarray) -> tuple[bytes, Sequence[bytes | memoryview]]:
        """Returns what comes before each record's content, and the contents.

        Args:
            rows: uint8[n, record_bytes], contiguous; must not change while the contents are used.
        """
        tried = self._kind == "auto" and self._calls % _TRIED == 0
        self._calls += 1
        if self._kind == "snappy" or tried or self._pays:
            contents = [memoryview(cramjam.snappy.compress_raw(row)) for row in rows]
            if not tried:
                return b"", contents
            self._pays = sum(map(len, contents)) < _WORTHWHILE * rows.nbytes
            if self._pays:
                return b"", contents
        whole, size = memoryview(rows).cast("B"), rows.shape[1]
        return self._prefix, [whole[start : start + size] for start in range(0, rows.nbytes, size)]


@functools.lru_cache(maxsize=8)
def stored_prefix(record_bytes: int) -> bytes:
    """What makes a Snappy block of the bytes that follow it, as they are."""
    return varint(record_bytes) + _FOUR_BYTE_LITERAL + (record_bytes - 1).to_bytes(4, "little")


def read_into(content: bytes, row: np.ndarray) -> None:
    """Reads a record.

    Args:
        content: a Snappy block.
        row: uint8[record_bytes], filled.

    Raises:
        ValueError: if the block is damaged, or does not have this size.
    """
    size = len(row)
    prefix = stored_prefix(size)
    if len(content) == len(prefix) + size and content.startswith(prefix):
        row[:] = np.frombuffer(content, np.uint8, size, len(prefix))
        return
    try:
        if cramjam.snappy.decompress_raw_len(content) == size:
            cramjam.snappy.decompress_raw_into(content, row)
            return
    except cramjam.DecompressionError as error:
        raise ValueError(f"a record of the replay is damaged: {error}") from error
    raise ValueError(f"a record of the replay does not have {size} bytes")
