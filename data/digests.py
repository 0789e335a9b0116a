"""Digests of what a source holds, cheap enough for every start of a run.

A digest is a text `KIND:HEX`: KIND says what it is of, and only digests of one kind can
be compared. Of files and shards, names and sizes are read, and a piece of a few images:
images without compression have equal sizes, and often the same names in every split.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Union

import numpy as np

# Of larger arrays so many bytes are read, in rows evenly over all.
_ARRAY_BYTES = 1 << 28
# Of so many images, evenly over all, so many bytes from the middle are read.
_SAMPLE = 16
_PIECE = 4096


class Place(NamedTuple):
    """Where the bytes of an encoded image are.

    Attributes:
        path: the file.
        offset: of the image's first byte in it.
        size: in bytes; -1 if the file is not there.
        member: its name in the file; empty if it is the whole file.
    """

    path: str
    offset: int
    size: int
    member: bytes = b""


def places_of(files: Iterable[Any]) -> list[Place]:
    """The places of encoded images; asks the disk for the size of each whole file.

    Args:
        files: paths; objects with a `path`; or parts of files such as `TarMember`, with
            `path`, `name`, `offset` and `size`.
    """
    return [_part(file) if hasattr(file, "offset") else _file(getattr(file, "path", file)) for file in files]


def of_places(places: Sequence[Place], texts: Iterable[str] = ()) -> str:
    """A digest of names, sizes, and of texts that belong to them; the same wherever they are mounted.

    Of a few images a piece is read too. Names are relative to the directory that all files
    share, and of shards only their own.
    """
    inside = any(place.member for place in places)
    hashed = PlacesDigest("members" if inside else "files")
    root = 0 if inside else len(_shared_directory([place.path for place in places]))
    for place in places:
        path = os.path.basename(place.path) if inside else place.path[root:]
        hashed.add_place(path, place.member, place.size)
    for number in sampled(len(places)):
        hashed.add_piece(piece_of(places[number]))
    for text in texts:
        hashed.add_text(text.encode(errors="surrogatepass"))
    return hashed.result()


class PlacesDigest:
    """What `of_places` makes, for who has not all places at once: first all places, then pieces, then texts.

    Args:
        kind: "members" or "files".
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._hashed = hashlib.blake2b(digest_size=16)

    def add_place(self, path: str, member: bytes, size: int) -> None:
        """Takes an image: of a shard's member, the shard's own name."""
        self._hashed.update(b"%b\0%b\0%d\n" % (os.fsencode(path), member, size))

    def add_piece(self, piece: bytes) -> None:
        """Takes what `piece_of` gives of an image that is `sampled`."""
        self._hashed.update(piece)

    def add_text(self, encoded: bytes) -> None:
        """Takes a text that belongs to the images."""
        self._hashed.update(b"%d\0%b" % (len(encoded), encoded))

    def result(self) -> str:
        """The digest."""
        return f"{self._kind}:{self._hashed.hexdigest()}"


def sampled(count: int) -> list[int]:
    """Of which of so many images a piece is read."""
    return np.unique(np.linspace(0, count - 1, _SAMPLE).astype(np.int64)).tolist()


def of_arrays(*arrays: np.ndarray) -> str:
    """A digest of arrays' contents; of one above 256 MiB only of so much, in rows evenly over all."""
    hashed = hashlib.blake2b(digest_size=16)
    for array in arrays:
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        step = max(1, -(-array.nbytes // _ARRAY_BYTES))
        # In pieces, so that an array that is not contiguous is not copied as a whole.
        rows = max(1, (1 << 22) * max(1, len(array)) // max(1, array.nbytes))
        for start in range(0, len(array), rows * step):
            hashed.update(np.ascontiguousarray(array[start : start + rows * step : step]).data)
    return f"contents:{hashed.hexdigest()}"


def _file(path: Union[str, "os.PathLike[str]"]) -> Place:
    name = os.fspath(path)
    try:
        return Place(name, 0, os.stat(name).st_size)
    except OSError:
        return Place(name, 0, -1)


def _part(file: Any) -> Place:
    # Whatever the locale: a name in a shard is bytes, those that are no UTF-8 as surrogates.
    return Place(str(file.path), file.offset, file.size, file.name.encode(errors="surrogateescape"))


def piece_of(place: Place) -> bytes:
    """What is in the middle of an image; nothing if it cannot be read."""
    try:
        with open(place.path, "rb", buffering=0) as file:
            start = place.offset + max(0, place.size - _PIECE) // 2
            return os.pread(file.fileno(), max(0, min(place.size, _PIECE)), start)
    except OSError:
        return b""


def _shared_directory(paths: Sequence[str]) -> str:
    """The directory, with its slash, that holds all of the paths; empty if there is none."""
    first, last = min(paths, default=""), max(paths, default="")
    pairs = zip(first, last, strict=False)
    shared = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared[: shared.rfind(os.sep) + 1]
