"""Finds the classes of a directory, and says what was meant where it holds something else."""

import os
from collections.abc import Mapping, Sequence

from classact.data.decode import FORMATS_IN_WORDS, SUFFIXES
from classact.data.left_out import LeftOut
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.walk import ListedFile, ending, entries, files_below, identity_of, is_directory

_TRAIN = ("train", "training")
_HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation")


def list_classes(folder: str, left_out: LeftOut) -> dict[str, list[ListedFile]]:
    """The images of each class, by the names of their directories, in the order of the names.

    A class is a directory with an image in it or anywhere below it.

    Args:
        folder: the directory that holds the classes' directories.
        left_out: takes what is left out, by reason.

    Raises:
        DataError: if a directory cannot be listed, there is no class, or the directories
            are the splits of a data set; the message says what was meant.
    """
    classes: dict[str, list[ListedFile]] = {}
    top = identity_of(folder)
    beside, empty = [], []
    for entry in entries(folder):
        if not is_directory(entry):
            beside.append(entry.name)
        elif files := files_below(folder, entry.name, SUFFIXES.__contains__, left_out, {top}):
            classes[entry.name] = files
        else:
            empty.append(entry.name)
    for name in empty:
        left_out.add("directories without an image, which are no classes", shown(name))
    if not classes:
        raise DataError(_without_classes(folder, beside, len(empty), left_out))
    for name in beside:
        kind = "images" if ending(name) in SUFFIXES else "files"
        left_out.add(f"{kind} beside the classes' directories", shown(name))
    _check_meant(folder, classes)
    return classes


def refuse_splits(kind: str, folder: str, files: Sequence[ListedFile]) -> None:
    """Raises DataError if all files lie in directories that are several splits of a data set.

    Args:
        kind: of the source, as a spec begins.
        folder: the directory that was named.
        files: all that was found in it.
    """
    names = list(dict.fromkeys(file.relative.partition("/")[0] for file in files))
    if len(names) > 1 and _are_splits(names) and all("/" in file.relative for file in files):
        where = shown(folder)
        raise DataError(
            f"{where}: its directories {', '.join(map(shown, names))} are the splits of a data set: say "
            f"{kind}:{os.path.join(where, shown(_meant_split(names)))}"
        )


def _are_splits(names: Sequence[str]) -> bool:
    """Whether the names of directories are those of the splits of a data set, and not of classes."""
    lower = [name.lower() for name in names]
    train = sum(name in _TRAIN for name in lower)
    held_out = sum(name in _HELD_OUT for name in lower)
    return (train > 0 and held_out > 0) or train + held_out == len(lower)


def _meant_split(names: Sequence[str]) -> str:
    """The one of the splits that is meant to be trained on; the first if none is for that."""
    return next((name for name in names if name.lower() in _TRAIN), names[0])


def _without_classes(folder: str, beside: Sequence[str], directories: int, left_out: LeftOut) -> str:
    """Why a directory has no classes."""
    where = shown(folder)
    images = [name for name in beside if ending(name) in SUFFIXES]
    if images:
        stems = {os.path.splitext(name)[0] for name in beside if ending(name) == ".txt"}
        captioned = any(os.path.splitext(name)[0] in stems for name in images)
        meant = f"; for images with captions, captioned_folder:{where}" if captioned else ""
        return (
            f"{where}: {len(images):,} images lie right in it, without a class: expected one directory "
            f"a class, as {where}/CLASS/{shown(images[0])}{meant}"
        )
    found = "".join(f"; left out: {line}" for line in left_out.lines())
    count = f"{directories} director{'y' if directories == 1 else 'ies'}"
    return f"{where}: no {FORMATS_IN_WORDS} files in its {count}, expected one directory a class{found}"


def _check_meant(folder: str, classes: Mapping[str, Sequence[ListedFile]]) -> None:
    """Raises DataError if the classes are probably further down."""
    where, names = shown(folder), list(classes)
    if _are_splits(names):
        raise DataError(
            f"{where}: its directories {', '.join(map(shown, names))} are the splits of a data set, not its "
            f"classes: {_instead(folder, names, classes)}"
        )
    if len(names) > 1:
        return
    # One directory in which there are others: the classes may be those.
    path, files = names[0], classes[names[0]]
    while True:
        inside = {file.relative.removeprefix(f"{path}/") for file in files}
        if any("/" not in name for name in inside):
            return
        below = sorted({name.partition("/")[0] for name in inside})
        if len(below) > 1 or _are_splits(below):
            break
        path = f"{path}/{below[0]}"
    meant = f"{path}/{_meant_split(below)}" if _are_splits(below) else path
    raise DataError(
        f"{where}: one class, {shown(names[0])}, of which nothing can be learned; if the directories in "
        f"it are the classes, say folder:{os.path.join(where, shown(meant))}"
    )


def _instead(folder: str, names: Sequence[str], classes: Mapping[str, Sequence[ListedFile]]) -> str:
    """What to say instead of a directory of splits."""
    train = _meant_split(names)
    path = os.path.join(shown(folder), shown(train))
    nested = [name for name in names if any(file.relative.count("/") > 1 for file in classes[name])]
    if train in nested:
        others = [name for name in nested if name != train]
        held_out = (
            f", and as eval_data folder:{os.path.join(shown(folder), shown(others[-1]))}" if others else ""
        )
        return f"say folder:{path}{held_out}"
    return f"say folder:{path}, with its images in one directory a class: {path}/CLASS/"
