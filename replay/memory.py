"""Memory for batches that is used again once nobody holds a part of it.

New memory costs as much as what is read into it: the kernel clears each page first, and takes it
back at the end. And only who uses a batch knows for how long: JAX on a CPU computes on it as it is.
"""

import collections

import numpy as np

# What JAX on a CPU takes as it is, and any vector code likes.
ALIGNED = 64
# Blocks that wait to be used again: one for each of the batch that is read and the one after it.
_WAITING = 2


class Blocks:
    """Gives out blocks of one size; any number of threads may use it.

    A block is in use as long as there is an array, of whatever kind, that shares its memory.
    """

    def __init__(self, size: int) -> None:
        """Takes no memory yet.

        Args:
            size: of a block, in bytes.
        """
        self._size = size
        self._waiting: collections.deque[np.ndarray] = collections.deque(maxlen=_WAITING)

    def get(self) -> np.ndarray:
        """A block uint8[size] whose address is a multiple of `ALIGNED`; what is in it is anything."""
        try:
            memory = self._waiting.pop()
        except IndexError:
            memory = np.empty(self._size + ALIGNED, np.uint8)
        first = -memory.ctypes.data % ALIGNED
        return np.frombuffer(_Lent(memory, self._waiting), np.uint8, self._size, first)


class _Lent:
    """A block in use: its last array's end gives it back."""

    def __init__(self, memory: np.ndarray, waiting: collections.deque[np.ndarray]) -> None:
        self._memory = memory
        self._waiting = waiting

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._memory)

    def __release_buffer__(self, view: memoryview) -> None:
        view.release()
        self._waiting.append(self._memory)
