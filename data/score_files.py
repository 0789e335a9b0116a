"""Score files: what a model's loss is on each example of a data set, by the example's id.

A folder of Parquet files, which any reader of Parquet takes as one table, and beside them
`_scores.json`, which says whose losses they are:

| column | type | |
|---|---|---|
| `id` | int64 | of the example, as `Source.batch` gives it |
| `loss` | float32 | ℓ_act: cross-entropy in nats (Eq. 8), or minus the dot product of a pair (Eq. 9) |

and of a classification `label` (int32, what the loss is of), `predicted` (int32), `probability` (float32,
of the predicted class) and `correct` (bool). `docs/amortised.md` says more. Other tools may
write such a folder: `id` and `loss` suffice, in any number of files.
"""

import contextlib
import json
import os
import pathlib
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

import numpy as np

DESCRIPTION = "_scores.json"
VERSION = 1
# An array over all ids up to the largest one, unless it would be so many times as long as there are ids.
_SPARSE = 4
_PART = b"classact.part"
_UNFINISHED = ".tmp"


class ScoreFileError(ValueError):
    """Score files that are missing, damaged or not complete; the message names the file."""


class Losses:
    """The losses of a data set's examples by their ids; 4 bytes an example where ids are indices.

    Args:
        losses: float32[N], by id, NaN where there is no example; or of the ids of `ids`.
        ids: int64[N], in rising order; None: 0 to N − 1.
    """

    def __init__(self, losses: np.ndarray, ids: Optional[np.ndarray] = None) -> None:
        self._losses = losses
        self._ids = ids

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Returns the losses float32[B] of examples; NaN of those that are not there.

        Args:
            ids: int64[B].
        """
        places = np.asarray(ids, np.int64)
        if self._ids is None:
            there = (places >= 0) & (places < len(self._losses))
        else:
            wanted, places = places, np.searchsorted(self._ids, places)
            there = places < len(self._ids)
            there[there] = self._ids[places[there]] == wanted[there]
        found = np.full(len(places), np.nan, np.float32)
        found[there] = self._losses[places[there]]
        return found


class ScoreFile:
    """A folder of score files that was read.

    Attributes:
        folder: it.
        description: what `_scores.json` says.
        losses: of its examples.
    """

    def __init__(self, folder: pathlib.Path, description: Mapping[str, Any], losses: Losses) -> None:
        self.folder = folder
        self.description = description
        self.losses = losses


# As long as anybody has one, the next one who asks gets the same: the run loops of a process.
_READ: "weakref.WeakValueDictionary[tuple[str, int], ScoreFile]" = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def read(folder: pathlib.Path) -> ScoreFile:
    """Reads a folder of score files whole: some four million examples a second.

    Raises:
        ScoreFileError: if there is none, if it is not complete, or if something in it is damaged.
    """
    description = describe(folder)
    with _LOCK:
        key = (os.path.realpath(folder), (folder / DESCRIPTION).stat().st_mtime_ns)
        found = _READ.get(key)
        if found is None:
            found = _READ[key] = ScoreFile(folder, description, _losses(folder, description))
    return found


def describe(folder: pathlib.Path) -> dict[str, Any]:
    """Reads what `_scores.json` says of a complete folder of score files.

    Raises:
        ScoreFileError: as `read`, of this file.
    """
    found = description_in(folder)
    if found is None:
        raise ScoreFileError(f"{folder}: no score files (no {DESCRIPTION}): make them by `classact score`")
    if not found.get("complete", True):
        raise ScoreFileError(f"{folder}: its scoring has not ended: give the same `classact score` again")
    return found


def description_in(folder: pathlib.Path) -> Optional[dict[str, Any]]:
    """What `_scores.json` says, complete or not; None if there is none.

    Raises:
        ScoreFileError: if it cannot be read, or is of another version.
    """
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ScoreFileError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        version = found.get("version") if isinstance(found, dict) else None
        raise ScoreFileError(f"{path}: version={version!r}, expected {VERSION}")
    return found


def part_path(folder: pathlib.Path, part: int) -> pathlib.Path:
    """The file of a part."""
    return folder / f"part-{part:06d}.parquet"


def write_part(path: pathlib.Path, columns: Mapping[str, np.ndarray], what: Mapping[str, Any]) -> None:
    """Writes a part, whole or not at all.

    Args:
        path: its file.
        columns: by name, one row an example.
        what: of the part, kept with it: `part_is_whole` asks for the same.

    Raises:
        OSError: if it cannot be written; nothing of it is left then.
    """
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({name: pyarrow.array(array) for name, array in columns.items()})
    table = table.replace_schema_metadata({_PART: json.dumps(what, sort_keys=True)})
    temporary = path.with_name(f".{path.name}{_UNFINISHED}")
    try:
        with open(temporary, "wb") as file:
            pyarrow.parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes what those who were killed have left of a part; nobody may be writing."""
    for left in folder.glob(f".*{_UNFINISHED}"):
        left.unlink()


def part_is_whole(path: pathlib.Path, what: Mapping[str, Any]) -> bool:
    """Whether a part is there, can be read, and is of what it should be."""
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_schema(path).metadata or {}
    # A machine that lost power may leave anything.
    except (OSError, pyarrow.ArrowException):
        return False
    return bool(found.get(_PART) == json.dumps(what, sort_keys=True).encode())


def rows(path: pathlib.Path) -> int:
    """How many examples a part has that is whole."""
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(path).num_rows)


def _losses(folder: pathlib.Path, description: Mapping[str, Any]) -> Losses:
    paths = sorted(folder.glob("*.parquet"))
    # Twice, so that no more than a file and the result are in memory.
    sizes = [(len(ids), int(ids.min()), int(ids.max())) for ids in _columns(paths, "id") if len(ids)]
    count = sum(size for size, _, _ in sizes)
    expected = description.get("examples", count)
    if not count or count != expected:
        raise ScoreFileError(
            f"{folder}: its files hold {count:,} examples, expected {expected or 1:,}: "
            "a file is missing, or does not belong there"
        )
    least, largest = min(size[1] for size in sizes), max(size[2] for size in sizes)
    if least < 0:
        raise ScoreFileError(f"{folder}: an id is {least}, expected at least 0")
    if largest < _SPARSE * max(count, 1 << 20):
        losses, there = np.full(largest + 1, np.nan, np.float32), np.zeros(largest + 1, bool)
        for ids, values in zip(_columns(paths, "id"), _columns(paths, "loss"), strict=True):
            losses[ids], there[ids] = values, True
        found, different = Losses(losses), int(np.count_nonzero(there))
    else:
        every = np.concatenate(list(_columns(paths, "id")))
        order = np.argsort(every)
        found = Losses(np.concatenate(list(_columns(paths, "loss")))[order], every[order])
        different = len(np.unique(every))
    _give_back()
    if different < count:
        raise ScoreFileError(f"{folder}: {count - different:,} examples are there more than once")
    return found


def _give_back() -> None:
    """Arrow keeps the memory of what it has read for the next time, which does not come."""
    import pyarrow

    pyarrow.default_memory_pool().release_unused()


def _columns(paths: Iterable[pathlib.Path], name: str) -> Iterator[np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    dtype = np.int64 if name == "id" else np.float32
    for path in paths:
        try:
            column = pyarrow.parquet.read_table(path, columns=[name])[name]
            yield column.to_numpy().astype(dtype, casting="same_kind")
        # Also of a column that is not there, has nulls, or texts.
        except (OSError, pyarrow.ArrowException, TypeError, ValueError, KeyError) as error:
            raise ScoreFileError(f"{path}: no column {name!r} of numbers can be read: {error}") from None
