"""Who may write what a run executes: its work directory, and in it the serialised nodes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from classact.experiments.config import ConfigError
from classact.launch.engines.outcome import LaunchError
from classact.nodes.errors import unwritable


def check_work_directory(workdir: Path) -> None:
    """Checks, without writing, that a run could leave its files in a directory.

    What only an attempt can show (`/proc`, which says that it can be written)
    `make_work_directory` finds.

    Raises:
      ConfigError: if it, or what it would be made in, is no directory or cannot be written,
        or if users who are neither its owner nor in its group may put something else in
        the place of what is in it.
    """
    field = f"workdir={str(workdir)!r}"
    try:
        os.lstat(workdir)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field} cannot be used ({_reason(error)}): name another one") from None
    nearest = next(path for path in (workdir, *workdir.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        what = "is not a directory" if nearest == workdir else f"cannot be made: {nearest} is not a directory"
        raise ConfigError(f"{field} {what}; name another one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{field}: {nearest} cannot be written: name another one")
    mode = nearest.stat().st_mode
    if nearest == workdir and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ConfigError(
            f"{field}: every user of this machine may replace what is in it, and so "
            "run code in this run: chmod o-w, or name another one"
        )


def make_work_directory(directory: Path) -> None:
    """Makes a run's directory, or one in it, unless it is there: writable by its group at most.

    Raises:
      LaunchError: if it cannot be made.
    """
    try:
        directory.mkdir(mode=0o775, parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(
            f"workdir: {directory} cannot be made ({_reason(error)}): name another one"
        ) from None


@contextlib.contextmanager
def written(workdir: Path) -> Iterator[None]:
    """Makes a LaunchError of one that says that the work directory cannot be written."""
    try:
        yield
    except OSError as error:
        why = unwritable(error)
        if why is None:
            raise
        raise LaunchError(f"workdir={str(workdir)!r}: {why}; the same command goes on once it can") from error


@contextlib.contextmanager
def held(lock: Path, said: str) -> Iterator[None]:
    """Keeps all others out who ask for the same lock, on every host that locks these files together.

    Args:
      lock: a file that is made for it, and stays; its folder must be there.
      said: if another one has it.

    Raises:
      LaunchError: if another one has it.
      OSError: if the file cannot be made.
    """
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LaunchError(said) from None
        yield
    finally:
        os.close(file)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def make_private(folder: Path) -> None:
    """Makes a folder that only this user may read or write; what is there already becomes that.

    For serialised nodes: to read one is to run the code in it.

    Raises:
      LaunchError: if something else than a folder of this user's is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        return
    # Left by a launcher that was killed, in use by the run that actors join, or a trap.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LaunchError(f"{folder}: must be a folder of the user who starts this, as code is run from it")
    folder.chmod(0o700)
