"""Lists the files of a data set below a directory, as people have them."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, BinaryIO

from classact.data.left_out import LeftOut
from classact.data.shown import shown
from classact.data.source import DataError

# What operating systems and storage boxes put into every directory or disk, in lower case.
_JUNK = (
    "__macosx", "@eadir", "thumbs.db", "desktop.ini",
    "lost+found", "$recycle.bin", "system volume information",
)  # fmt: skip
_LONGEST_ENDING = 9


@dataclasses.dataclass(frozen=True, slots=True)
class ListedFile:
    """A file below a directory; `str` is its path, as a person reads it.

    Attributes:
        folder: the directory.
        relative: the path from there, with `/`; the same wherever the directory is.
    """

    folder: str
    relative: str

    @property
    def path(self) -> str:
        """The path to open it by."""
        return os.path.join(self.folder, self.relative)

    def open(self, mode: Any = "rb") -> BinaryIO:
        """Opens it for reading bytes; OSError if it cannot be."""
        del mode
        return open(self.path, "rb")

    def size(self) -> int:
        """Its size in bytes now, a system call; OSError if it is not there."""
        return os.stat(self.path).st_size

    def __str__(self) -> str:
        return shown(self.path)


def is_junk(name: str) -> bool:
    """Whether a file or directory is no data, and not worth a word: hidden, or put there by a system."""
    return name.startswith(".") or name.lower() in _JUNK


def ending(name: str) -> str:
    """The ending of a file's name in lower case, with its dot; empty if it has none."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if suffix != "." else ""


def reason_of_ending(name: str) -> str:
    """The reason for which a file is left out, as `LeftOut` counts it: its ending."""
    found = ending(name)
    if not found:
        return "without an ending"
    # Of names like `photo.2019-07-01 12.30`, each would be a reason of its own.
    plain = len(found) <= _LONGEST_ENDING and found[1:].isalnum() and not found[1:].isdecimal()
    return f"with the ending {found}" if plain else "with another ending"


def entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a directory and no junk, by name; DataError if it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not is_junk(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be listed ({error.strerror})") from error


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # A link that leads round in a circle, or to where nobody may look.
        return False


def files_below(
    folder: str, start: str, wanted: Callable[[str], bool], left_out: LeftOut, read: set[tuple[int, int]]
) -> list[ListedFile]:
    """All files below a directory, at any depth.

    They come in the order of their paths, compared name by name: it depends on the
    names alone. Links to directories are followed, but no directory is read twice,
    which is also how a link to a directory above ends.

    Args:
        folder: what the files' `relative` is from.
        start: the directory to list, from `folder`; empty for `folder` itself.
        wanted: which files, by their ending.
        left_out: takes what is not listed, by reason.
        read: (device, inode) of directories that are not to be read; those that are read are added.

    Raises:
        DataError: if a directory cannot be listed.
    """
    files: list[ListedFile] = []
    # A stack instead of recursion: nothing limits how deep directories are.
    pending = [(start, True)]
    while pending:
        relative, directory = pending.pop()
        if not directory:
            files.append(ListedFile(folder, relative))
            continue
        path = os.path.join(folder, relative) if relative else folder
        if not _first_visit(path, read):
            left_out.add("directories that are read already, by another path", shown(relative))
            continue
        prefix = f"{relative}/" if relative else ""
        listed = []
        for entry in entries(path):
            if is_directory(entry):
                listed.append((prefix + entry.name, True))
            elif not wanted(ending(entry.name)):
                left_out.add(reason_of_ending(entry.name), shown(prefix + entry.name))
            elif _is_special(entry):
                left_out.add("neither files nor directories", shown(prefix + entry.name))
            else:
                listed.append((prefix + entry.name, False))
        pending += reversed(listed)
    return files


def _first_visit(path: str, read: set[tuple[int, int]]) -> bool:
    """Whether a directory has not been read; notes that it is."""
    identity = identity_of(path)
    if identity in read:
        return False
    read.add(identity)
    return True


def identity_of(path: str) -> tuple[int, int]:
    """(device, inode): the same by every path to it; DataError if it is not there."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be listed ({error.strerror})") from error
    return status.st_dev, status.st_ino


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether it is a pipe, a socket or a device, of which opening one may block for ever.

    A link to nothing is not: it counts as a damaged file.
    """
    try:
        return not entry.is_file() and os.path.exists(entry.path)
    except OSError:
        return False
