"""Who may write what a run executes: its work directory, and in it the serialised nodes."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from classact.experiments.config import ConfigError
from classact.launch.outcome import LaunchError


def check_work_directory(workdir: Path) -> None:
    """Checks a work directory that may be there already.

    Raises:
      ConfigError: if it is no directory, or users who are neither its owner nor in its
        group may put something else in the place of what is in it.
    """
    try:
        mode = workdir.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        raise ConfigError(f"workdir={str(workdir)!r} is not a directory")
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ConfigError(
            f"workdir={str(workdir)!r}: every user of this machine may replace what is in it, and so "
            "run code in this run: chmod o-w, or name another one"
        )


def make_work_directory(workdir: Path) -> None:
    """Makes a work directory unless it is there: writable by its group at most, if the umask says so."""
    workdir.mkdir(mode=0o775, parents=True, exist_ok=True)


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
