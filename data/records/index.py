"""Where the records of shards are, and what all of them say: read once, and kept in a file."""

import hashlib
import json
import logging
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import pyarrow as pa

from classact.data import announced
from classact.data.cache_folder import VARIABLE, cache_folder
from classact.data.left_out import LeftOut
from classact.data.records.examples import values
from classact.data.records.framing import checksum
from classact.data.records.shards import Shards
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables.parts import reason, write_table

# What smaller shards say is read anew by each reader.
KEPT_ABOVE = 64 << 20
# Reading more takes so long that a person is told.
_LONG = 1 << 30
_VERSION = 2
_NAMED = 3
_METADATA = b"classact"

_log = logging.getLogger(__name__)


class Index(NamedTuple):
    """The intact records of shards, one behind the other.

    Attributes:
        starts: int64[S + 1], the number of the first record of each shard, and of all.
        places: int64[N], by which `Shards.read` finds a record in its shard.
        sizes: int64[N] in bytes.
        told: of each record a number or text, None if it has none; or a list of texts.
        broken: records that cannot be used: by reason (how many, names of the first).
        contents: changes when any record does.
        kept: the file that it is kept in, or None.
    """

    starts: np.ndarray
    places: np.ndarray
    sizes: np.ndarray
    told: pa.ChunkedArray
    broken: dict[str, tuple[int, list[str]]]
    contents: str
    kept: Optional[pathlib.Path] = None

    @property
    def num_broken(self) -> int:
        """How many records cannot be used."""
        return sum(count for count, _ in self.broken.values())

    def count_broken(self, left_out: LeftOut) -> None:
        """Adds the records that cannot be used to what is left out."""
        for why, (count, names) in self.broken.items():
            for name in names:
                left_out.add(f"damaged, as {why}", name)
            if count > len(names):
                left_out.add(f"damaged, as {why}", "", count - len(names))


def index_of(
    shards: Shards, paths: Sequence[str], field: str, several: bool, lengths: Optional[Sequence[int]] = None
) -> Index:
    """Reads what the records of files say in one field, all files to their ends.

    Of more than 64 MiB it is kept in a file in `cache_folder("records")`, for all readers
    of this machine and later runs, until a shard has another size or time. It blocks for as long
    as reading the shards takes; nothing but an interrupt of the process stops it.

    Args:
        shards: reads the files.
        paths: the files.
        field: of labels or captions.
        several: whether records have lists of texts there, not one value.
        lengths: how many records each file should have, if that is known.

    Raises:
        DataError: if a file cannot be read or is cut off, or values of a field are of several kinds.
    """
    try:
        stats = [os.stat(path) for path in paths]
    except OSError as error:
        raise DataError(f"{shown(error.filename)}: cannot be read ({reason(error)})") from error
    total = sum(each.st_size for each in stats)
    if total <= KEPT_ABOVE:
        return _read(shards, paths, field, several, lengths)
    named = [
        [os.path.basename(path), each.st_size, each.st_mtime_ns]
        for path, each in zip(paths, stats, strict=True)
    ]
    key = json.dumps([_VERSION, shards.kind, field, several, lengths, named])
    kept = cache_folder("records") / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.arrow"
    found = _load(kept)
    if found is None:
        if total > _LONG:
            _log.warning("%d files: all their records are read once (%.1f GB)", len(paths), total / 1e9)
        found = _read(shards, paths, field, several, lengths)
        if _save(found, kept):
            found = found._replace(kept=kept)
    return found


def _read(
    shards: Shards, paths: Sequence[str], field: str, several: bool, lengths: Optional[Sequence[int]]
) -> Index:
    told_by: Callable[[bytes], Any] = _texts_in(field) if several else _value_in(field)
    broken = _Broken()
    starts = [0]
    places: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    chunks: list[pa.Array] = []
    hashed = hashlib.blake2b(digest_size=16)
    for number, path in enumerate(paths):
        # Of one shard at a time as Python's objects, which take ten times the memory.
        before = broken.count
        kept = list(_intact(shards, path, told_by, broken))
        missing = 0 if lengths is None else lengths[number] - len(kept) - (broken.count - before)
        if missing > 0:
            broken.add("it is not there, though the data set counts it", shown(path), missing)
        starts.append(starts[-1] + len(kept))
        places.append(np.array([each[0] for each in kept], np.int64))
        sizes.append(np.array([each[1] for each in kept], np.int64))
        hashed.update(np.array([each[2] for each in kept], "<u4").tobytes())
        chunks.append(_array([each[3] for each in kept], several, f"{shown(path)}, field {field!r}"))
        announced.progressed()
    return Index(
        np.array(starts),
        np.concatenate(places),
        np.concatenate(sizes),
        _joined(chunks, paths, field),
        broken.by_reason,
        hashed.hexdigest(),
    )


class _Broken:
    """Counts records that cannot be used."""

    def __init__(self) -> None:
        self.count = 0
        self.by_reason: dict[str, tuple[int, list[str]]] = {}

    def add(self, why: str, name: str, count: int = 1) -> None:
        before, names = self.by_reason.get(why, (0, []))
        self.by_reason[why] = (before + count, [*names, name] if len(names) < _NAMED else names)
        self.count += count


def _intact(
    shards: Shards, path: str, told_by: Callable[[bytes], Any], broken: _Broken
) -> Iterator[tuple[int, int, int, Any]]:
    """Yields (place, size, checksum, what it tells) of each record that can be used."""
    for record in shards.scan(path):
        problem = record.problem
        if record.content is not None:
            try:
                told = told_by(record.content)
            except ValueError as error:
                problem = str(error)
            else:
                yield record.place, record.size, checksum(record.content), told
                continue
        broken.add(problem, shards.name(path, record.place))


def _value_in(field: str) -> Callable[[bytes], Any]:
    def value(content: bytes) -> Any:
        found = values(content, field)
        if len(found) > 1:
            raise ValueError(f"it has several values of {field}, expected one")
        return _plain(found[0], field) if found else None

    return value


def _texts_in(field: str) -> Callable[[bytes], list[Optional[str]]]:
    def texts(content: bytes) -> list[Optional[str]]:
        found = [_plain(value, field) for value in values(content, field)]
        if not all(isinstance(text, str) for text in found):
            raise ValueError(f"its {field} is no text")
        return found

    return texts


def _plain(value: Any, field: str) -> Any:
    """A number, or a text; ValueError for anything else."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"its {field} is no text in UTF-8") from None
    if value is not None and not isinstance(value, (str, int, float)):
        raise ValueError(f"its {field} is neither a number nor a text")
    return value


def _array(told: list[Any], several: bool, where: str) -> pa.Array:
    if several:
        return pa.array(told, pa.list_(pa.string()))
    try:
        return pa.array(told)
    except (pa.ArrowException, OverflowError) as error:
        kinds = Counter(type(value).__name__ for value in told if value is not None)
        raise DataError(
            f"{where}: values of several kinds ({', '.join(kinds)}), or too large: expected whole numbers, "
            "or texts, in all records"
        ) from error


def _joined(chunks: Sequence[pa.Array], paths: Sequence[str], field: str) -> pa.ChunkedArray:
    first_of: dict[pa.DataType, str] = {}
    for chunk, path in zip(chunks, paths, strict=True):
        if not pa.types.is_null(chunk.type):
            first_of.setdefault(chunk.type, path)
    if len(first_of) > 1:
        (kind, path), (other, other_path) = list(first_of.items())[:2]
        raise DataError(
            f"{shown(other_path)}, field {field!r}: {other}, but {kind} in {shown(path)}: expected "
            "whole numbers, or texts, in all files"
        )
    kind = next(iter(first_of), pa.null())
    return pa.chunked_array([chunk.cast(kind) for chunk in chunks], kind)


def _save(index: Index, path: pathlib.Path) -> bool:
    """Writes an index into a file, as a whole or not at all; says whether it could."""
    told = {
        "starts": index.starts.tolist(),
        "broken": index.broken,
        "contents": index.contents,
    }
    columns = {"place": index.places, "size": index.sizes, "told": index.told}
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(told).encode()})
    try:
        write_table(path, table)
    except OSError as error:
        _log.warning(
            "%s: what the records say cannot be kept there (%s), and is read anew by each reader: make "
            "room, or name another directory by %s",
            path.parent, error.strerror or error, VARIABLE,
        )  # fmt: skip
        return False
    return True


def _load(path: pathlib.Path) -> Optional[Index]:
    """An index from its file, mapped into memory; None if there is none that can be read."""
    if not path.is_file():
        return None
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
            table = file.read_all()
            told = json.loads(table.schema.metadata[_METADATA])
    except (OSError, pa.ArrowException, ValueError) as error:
        _log.warning("%s: damaged, and written anew (%s)", path, reason(error))
        return None
    broken = {why: (count, names) for why, (count, names) in told["broken"].items()}
    places, sizes = (table.column(name).to_numpy() for name in ("place", "size"))
    return Index(
        np.array(told["starts"]), places, sizes, table.column("told"), broken, told["contents"], path
    )
