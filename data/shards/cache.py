"""A directory of files that were fetched, of a limited size, which all processes of a machine share."""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Optional

import filelock

from classact.data.source import DataError

# For how long to wait for another process that fetches the same file.
LOCK_SECONDS = 3600.0
# Files that differ may wait for each other, so that not each leaves a lock behind.
_LOCKS = 256


class ShardCache:
    """Files by name; those that were used longest ago leave when there is no room.

    A file stays as long as somebody has it open, in whatever process: the kernel's lock on it says so,
    also after a process has died. So does one that is being fetched.

    Args:
        folder: made when the first file comes. On a disk of this machine: files are locked.
        limit: bytes that all files together may take.
    """

    def __init__(self, folder: pathlib.Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def open(self, key: str, size: int, name: str, fetch: Callable[[BinaryIO], None]) -> BinaryIO:
        """A file, open for reading, fetched unless it is there.

        Blocks as `fetch` does, and as long as another process fetches it, up to `LOCK_SECONDS`.

        Args:
            key: what it is called here, hexadecimal digits.
            size: in bytes.
            name: for messages.
            fetch: writes its bytes.

        Raises:
            DataError: if there is no room, it cannot be written, or after `LOCK_SECONDS`; as `fetch` does.
        """
        path = self.folder / f"{key}.tar"
        try:
            found = _opened(path, size)
            if found is not None:
                return found
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(f"{int(key, 16) % _LOCKS:02x}"):
                found = _opened(path, size)
                return self._fetched(path, size, name, fetch) if found is None else found
        except filelock.Timeout as error:
            raise DataError(
                f"{name}: another process has been fetching it into {self.folder} for {LOCK_SECONDS:.0f} s"
            ) from error
        except OSError as error:
            raise DataError(f"{name}: cannot be kept in {self.folder} ({error.strerror or error})") from error

    def _lock(self, name: str) -> filelock.BaseFileLock:
        return filelock.FileLock(self.folder / f"{name}.lock", timeout=LOCK_SECONDS)

    def _fetched(
        self, path: pathlib.Path, size: int, name: str, fetch: Callable[[BinaryIO], None]
    ) -> BinaryIO:
        """Fetches a file that is not there; the caller holds its lock."""
        part = path.with_suffix(".part")
        with contextlib.ExitStack() as opened:
            with self._lock("room"):
                file = opened.enter_context(part.open("w+b"))
                fcntl.flock(file, fcntl.LOCK_EX)
                self._make_room(size, name)
                # So that others see what room it takes.
                file.truncate(size)
            try:
                fetch(file)
                if file.tell() != size:
                    raise OSError(f"{file.tell()} bytes came instead of {size}")
                # Whoever finds it finds the whole of it.
                file.flush()
                # Who counts what is there must not miss it between its two names.
                with self._lock("room"):
                    os.replace(part, path)
                    # Nor may who makes room remove it between its two locks.
                    file.close()
                    found = _opened(path, size)
            # Whatever cut it short, an interrupt too: half a file is of no use to anybody.
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        if found is None:
            raise OSError("it was removed at once")
        return found

    def _make_room(self, size: int, name: str) -> None:
        """Removes what was used longest ago; DataError if what is in use leaves too little."""
        known = sorted(_files(self.folder))
        taken = sum(own for _, own, _ in known)
        for _, own, path in known:
            if taken + size <= self.limit:
                return
            if _removed(path):
                taken -= own
        if taken + size > self.limit:
            used = f"of whose {self.limit / 1e9:.3g} GB {taken / 1e9:.3g} are being read"
            raise DataError(
                f"{name}: its {size / 1e9:.3g} GB do not fit into {self.folder}, {used}: "
                "say a larger cache_gb, room for two shards of each reader"
            )


def _files(folder: pathlib.Path) -> Iterator[tuple[int, int, pathlib.Path]]:
    """(when it was used last, size in bytes, path) of each file that was fetched, or is being."""
    for path in folder.iterdir():
        # One may become whole, or fail, meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if path.suffix in (".tar", ".part"):
                status = path.stat()
                yield status.st_mtime_ns, status.st_size, path


def _opened(path: pathlib.Path, size: int) -> Optional[BinaryIO]:
    """A file that stays as long as it is open; None if it is not there."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    status = os.fstat(file.fileno())
    # Somebody may have removed it between the two.
    if not status.st_nlink or status.st_size != size:
        file.close()
        return None
    # Finer than the clock that the kernel would take.
    now = time.time_ns()
    # Another user's file cannot be marked as used: it counts as old as it is.
    with contextlib.suppress(PermissionError):
        os.utime(path, ns=(now, now))
    return file


def _removed(path: pathlib.Path) -> bool:
    """Removes a file unless somebody has it open; whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        # It became whole, under another name, or its fetching failed.
        return not path.with_suffix(".tar").exists()
    return True
