"""Unix sockets for a program on one machine: in a folder that nobody else may enter.

So no port is open, and the kernel says who may call. Not in XDG_RUNTIME_DIR, which is removed
when a user logs out: a run in the background goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from classact.calls import addresses
from classact.launch.engines.outcome import LaunchError

_LONGEST_NAME = 40
# What a run's folder and a socket in it take of a path.
_BELOW = 1 + 8 + 1 + _LONGEST_NAME


class PrivateSockets:
    """Addresses "unix:…" in a new folder, which is removed by `close`.

    As long as this process lives it holds a lock on the folder: one without is of a launcher
    that was killed, and is removed by the next one.
    """

    def __init__(self, base: Path | None = None) -> None:
        """Makes the folder, with mode 0700.

        Args:
            base: in which folder of this user's; it is made too. By default one in the
                directory for temporary files.

        Raises:
            LaunchError: if that is another user's, or open to others.
        """
        base = base or _default_base()
        _make_private(base)
        _remove_left_behind(base)
        self._given = 0
        self._folder, self._lock = _new_folder(base)

    def __call__(self, name: str) -> str:
        """Returns an address for a server, named in part by `name`; nothing is there yet."""
        self._given += 1
        room = addresses.LONGEST_PATH - len(os.fsencode(self._folder)) - 1
        readable = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{self._given}-{name}")[: min(room, _LONGEST_NAME)]
        return f"{addresses.UNIX}{self._folder / readable}"

    def close(self) -> None:
        """Removes the folder with all sockets; safe to call twice."""
        if self._lock >= 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> PrivateSockets:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _default_base() -> Path:
    name = f"classact-{os.geteuid()}"
    chosen = Path(tempfile.gettempdir()) / name
    # Some systems name folders for temporary files at length.
    too_long = len(os.fsencode(chosen)) + _BELOW > addresses.LONGEST_PATH
    return Path("/tmp") / name if too_long else chosen


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        return
    # In the directory for temporary files anybody may have made it, or a link.
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not private or stat.S_IMODE(found.st_mode) & 0o077:
        raise LaunchError(
            f"{folder}: must be a folder of the user who starts this, with mode 0700; "
            "remove it, or name another directory for temporary files by TMPDIR"
        )


def _new_folder(base: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that locks it."""
    while True:
        folder = base / secrets.token_hex(4)
        try:
            base.mkdir(mode=0o700, exist_ok=True)  # Who cleans up may have taken it meanwhile.
            folder.mkdir(mode=0o700)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileExistsError, FileNotFoundError):
            continue  # Taken, or taken for one that was left behind before it was locked.
        if _locks(lock) and folder.exists():
            return folder, lock
        os.close(lock)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_left_behind(base: Path) -> None:
    """Removes the folders that nobody locks, and nothing else."""
    for folder in base.iterdir():
        with contextlib.suppress(OSError):  # A file, a link, or gone meanwhile.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _locks(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
