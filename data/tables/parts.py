"""What the tables of all formats need."""

import glob
import itertools
import os
import pathlib
import uuid
from collections.abc import Callable, Sequence
from typing import Optional

import pyarrow as pa

from classact.data.file_patterns import expanded, is_url
from classact.data.shown import shown
from classact.data.source import DataError

# What a run measures on, by the names that data sets give it; the first that there is.
_EVAL_SPLITS = ("validation", "valid", "val", "dev", "test", "eval", "evaluation")


def files_of(kind: str, argument: str, wanted: Callable[[str], bool], called: str) -> list[str]:
    """The files that a spec's argument names: one, those in a directory, or of a pattern.

    In a pattern `*`, `?` and `[…]` match as in a shell, sorted; braces are those of `braces.expand`, in
    their order.

    Args:
        kind: of the source, for errors.
        argument: what the spec says.
        wanted: which files of a directory are taken, by their paths.
        called: how such files are called, for errors; for instance `*.parquet`.

    Returns:
        Their paths.

    Raises:
        DataError: if there are none, a name of braces has none, or a file is named twice.
    """
    if not argument:
        raise DataError(f"data source {kind!r} needs a file: {kind}:PATTERN")
    if is_url(argument):
        raise DataError(
            f"{shown(argument.partition('?')[0])}: a URL, expected files of a disk; shards behind URLs are "
            "read by tar:URL, data sets of the hub by hf:NAME"
        )
    pattern = os.path.expanduser(argument)
    # A name may have braces of its own.
    paths = [pattern] if os.path.lexists(pattern) else expanded(pattern)
    found = list(itertools.chain.from_iterable(_files_at(path, wanted, called) for path in paths))
    if len(set(found)) < len(found):
        twice = next(path for path in found if found.count(path) > 1)
        raise DataError(f"{shown(twice)}: named twice in {shown(argument)}, expected each file once")
    return found


def _files_at(path: str, wanted: Callable[[str], bool], called: str) -> list[str]:
    """The files of a pattern without braces."""
    if os.path.isdir(path):
        below = (os.path.join(root, name) for root, _, names in os.walk(path) for name in names)
        found = sorted(file for file in below if wanted(file))
        missing = f"no file {called} in this directory"
    else:
        found = sorted(glob.glob(path, recursive=True)) or sorted(glob.glob(glob.escape(path)))
        missing = "no such file"
    if not found:
        raise DataError(
            f"{shown(path)}: {missing}; expected a file, a directory or a pattern, as data/{called}"
        )
    return found


def split_of(where: str, names: Sequence[str], use: str, split: Optional[str]) -> tuple[str, bool]:
    """Which split of a data set to take.

    Args:
        where: the data set, for errors.
        names: of its splits.
        use: "train" or "eval".
        split: the one to take for both; None: "train", and one to measure on if there is one.

    Returns:
        Its name, and whether those of "train" and of "eval" are different ones.

    Raises:
        DataError: if there is no such split, or none that is plainly trained on.
    """
    measured = next((name for name in _EVAL_SPLITS if name in names), None)
    train = "train" if "train" in names else names[0]
    if split is None and train != "train" and len(names) > 1:
        raise DataError(f"{where}: which split? say ?split= with one of {', '.join(names)}")
    has_splits = split is None and measured is not None and measured != train
    wanted = split or (measured if measured is not None and has_splits and use == "eval" else train)
    if wanted not in names:
        raise DataError(f"{where}: no split {wanted!r}, expected one of {', '.join(names)}")
    return wanted, has_splits


def images_folder(folder: Optional[str], file: str) -> str:
    """Where relative paths of images start: at the option `folder`, or at the directory of a file.

    Raises:
        DataError: if the option names no directory.
    """
    if not folder:
        return os.path.dirname(file)
    found = os.path.expanduser(folder)
    if not os.path.isdir(found):
        raise DataError(f"folder={folder}: no such directory, expected that in which the images are")
    return found


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of an Arrow type holds texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def reason(error: Exception) -> str:
    """Why a file cannot be read, in few words; Arrow's own errors name the file again, and more."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error).splitlines()[0].split(". Detail")[0].rstrip(".")


def write_table(path: pathlib.Path, table: pa.Table) -> None:
    """Writes an Arrow file to be mapped, whole or not at all, and the directories that it needs.

    Who is killed meanwhile leaves a file behind, whose name is the path's with a suffix.

    Raises:
        OSError: if the disk refuses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
