"""Which images of a source are the same, byte by byte.

For a split, so that no image is on both sides of it. An image that was encoded anew is
another one: near duplicates are not looked for.
"""

import collections
import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Optional

import numpy as np

from classact.data.digests import Place

# Only images of equal size can be the same. If there are more of these, which takes
# about a second where the disk's cache holds them, copies are not looked for.
MAX_CANDIDATES = 100_000
# Of each candidate these bytes are read, from its middle, where images differ; the whole
# only of those that are alike in them.
_PIECE = 4096


def equal_rows(images: np.ndarray) -> np.ndarray:
    """Numbers int64[N] of images uint8[N, …]: the same number, the same pixels.

    An image's number is the index of the first that is like it.
    """
    first: dict[bytes, int] = {}
    return np.array(
        [
            first.setdefault(
                hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest(), index
            )
            for index, image in enumerate(images)
        ],
        np.int64,
    )


def equal_files(places: Sequence[Place]) -> Optional[np.ndarray]:
    """Numbers int64[N] of encoded images: the same number, the same bytes.

    Reads a piece of each image whose size another one has, and the whole of those that
    are alike so far. One that cannot be read is taken to be like no other.

    Returns:
        For each image the index of the first that is like it; None if more than
        `MAX_CANDIDATES` would have to be read.
    """
    first = np.arange(len(places))
    alike = _groups({index: place.size for index, place in enumerate(places) if place.size > 0})
    if sum(map(len, alike)) > MAX_CANDIDATES:
        return None
    for whole in (False, True):
        pieces = _read([index for group in alike for index in group], places, whole)
        alike = _groups({index: (places[index].size, piece) for index, piece in pieces.items()})
    for group in alike:
        first[group] = min(group)
    return first


def _groups(keys: Mapping[int, object]) -> list[list[int]]:
    """The indices whose keys are equal, where there is more than one."""
    groups = collections.defaultdict(list)
    for index, key in keys.items():
        groups[key].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _read(indices: Sequence[int], places: Sequence[Place], whole: bool) -> dict[int, bytes]:
    """Digests of images, or of a piece of each, by index; without those that cannot be read."""
    digests = {}
    opened: Optional[BinaryIO] = None
    with contextlib.ExitStack() as files:
        for index in sorted(indices, key=lambda index: (places[index].path, places[index].offset)):
            place = places[index]
            try:
                if opened is None or opened.name != place.path:
                    files.close()
                    opened = files.enter_context(open(place.path, "rb", buffering=0))
                start, size = place.offset, place.size
                if not whole and size > _PIECE:
                    start, size = start + (size - _PIECE) // 2, _PIECE
                content = os.pread(opened.fileno(), size, start)
            except OSError:
                opened = None
                continue
            if len(content) == size:
                digests[index] = hashlib.blake2b(content, digest_size=16).digest()
    return digests
