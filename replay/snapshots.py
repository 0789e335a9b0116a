"""The tables on disk: one folder for each learner step at which they were saved.

See `folders` for what is where. A server that starts loads the newest step: a run that
resumes from an earlier one has removed those after it.
"""

import logging
import pathlib
import shutil
import threading
import time
from collections.abc import Collection, Sequence

from classact.replay import folders
from classact.replay.server_calls import ReplayError, ServerCalls

# How long writing may take: Reverb compresses what it writes, some 20 MB/s of pixels on one core.
_WRITE_SECONDS = 1800.0
# Between two looks at whether a server has begun to write.
_LOOK_SECONDS = 0.01


class SnapshotError(RuntimeError):
    """The tables could not be saved."""


class Snapshots:
    """Saves the tables of several shards together: of all, or of none."""

    def __init__(
        self, addresses: Sequence[str], folders: Sequence[pathlib.Path], timeout: float = 120.0
    ) -> None:
        """Connects to nothing yet.

        Args:
            addresses: "host:port" or "unix:/path" of the replay server of each shard.
            folders: of each; this process and the server see it under the same path.
            timeout: seconds that `save` may take.
        """
        self._shards = tuple(zip(addresses, folders, strict=True))
        self._timeout = timeout

    def begin(self, step: int) -> "Saving":
        """Asks all servers to save their tables; blocks for nothing.

        A server sets aside what each of its tables holds, one after the other, which takes
        milliseconds, and writes that while it goes on to serve. Until it is written, what has left the
        tables meanwhile stays in the server's memory.

        Args:
            step: of the learner.
        """
        return Saving([_Attempt(address, folder, step) for address, folder in self._shards])

    def save(self, step: int, kept: Collection[int]) -> None:
        """Saves all tables as they are now.

        Blocks until all are on disk, `timeout` seconds at most; see `Saving.finish`.

        Args:
            step: of the learner.
            kept: steps whose tables stay beside this one.

        Raises:
            SnapshotError: if a server did not save in time, or could not.
        """
        self.begin(step).finish(kept, self._timeout)

    def discard(self, step: int) -> None:
        """Removes what was saved at a step, if anything was."""
        for _, folder in self._shards:
            shutil.rmtree(folder / str(step), ignore_errors=True)


class Saving:
    """Tables of several shards that are being saved. Any number of threads may use it."""

    def __init__(self, attempts: Sequence["_Attempt"]) -> None:
        """Follows the attempts."""
        self._attempts = tuple(attempts)

    def is_set_aside(self) -> bool:
        """Whether all servers have set aside what they write; blocks for nothing.

        What is inserted or drawn from then on is not part of it.

        Raises:
            SnapshotError: if a server could not save.
        """
        # Looked at before failures: a server that fails now counts as having done so, too.
        all_set_aside = all(attempt.set_aside.is_set() for attempt in self._attempts)
        for attempt in self._attempts:
            if attempt.done.is_set() and (why := attempt.failure(0.0)):
                raise SnapshotError(why)
        return all_set_aside

    def wait_set_aside(self, timeout: float) -> None:
        """Blocks until `is_set_aside`.

        Raises:
            SnapshotError: as there, or if a server has not done so after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        for attempt in self._attempts:
            if not attempt.set_aside.wait(max(0.0, deadline - time.monotonic())):
                raise SnapshotError(f"{attempt.address}: has not begun to save in {timeout} s")
        self.is_set_aside()

    def finish(self, kept: Collection[int], timeout: float = _WRITE_SECONDS) -> None:
        """Blocks until all are on disk, `timeout` seconds at most.

        If one could not be saved in time, the others' are removed, and its own as soon as it
        is done: a run that goes on from this step reads again what all tables held.

        Args:
            kept: steps whose tables stay beside this one.
            timeout: in seconds.

        Raises:
            SnapshotError: if a server did not save in time, or could not.
        """
        deadline = time.monotonic() + timeout
        for attempt in self._attempts:
            attempt.done.wait(max(0.0, deadline - time.monotonic()))
        failures = [why for attempt in self._attempts if (why := attempt.failure(timeout))]
        if failures:
            self.give_up()
            raise SnapshotError("; ".join(failures))
        for attempt in self._attempts:
            try:
                folders.keep(attempt.folder, {*kept, attempt.step})
            # They are in nobody's way but the disk's; the next time is another try.
            except OSError as error:
                logging.warning("older tables in %s were not removed: %s", attempt.folder, error)

    def give_up(self) -> None:
        """Removes what was saved, or will be; blocks for nothing but that."""
        for attempt in self._attempts:
            attempt.give_up()


class _Attempt:
    """The saving of one shard, in threads: a server that has begun to save cannot be told to stop.

    Attributes:
        address: of the server.
        folder: of the shard.
        step: of the learner.
        set_aside: set when the server writes what its tables held at a moment that has passed, or
            never will.
        done: set when all is on disk, or never will be.
    """

    def __init__(self, address: str, folder: pathlib.Path, step: int) -> None:
        self.address = address
        self.folder = folder
        self.step = step
        self.set_aside, self.done = threading.Event(), threading.Event()
        self._target = folder / str(step)
        self._lock = threading.Lock()
        self._given_up = False
        self._failure: str | None = ""
        # The folder of what is being written.
        self._begun: pathlib.Path | None = None
        threading.Thread(target=self._save, name="replay snapshot", daemon=True).start()

    def failure(self, timeout: float) -> str | None:
        """What went wrong, or that nothing has come of it in so many seconds; None if it is saved."""
        if self._failure is None:
            return None
        return f"{self.address}: {self._failure or f'no answer in {timeout} s'}"

    def give_up(self) -> None:
        """Removes what was saved, or will be."""
        # Not held while files are touched: a disk may hang, and the learner must not.
        with self._lock:
            self._given_up = True
            saved = self._failure is None
        if saved:
            shutil.rmtree(self._target, ignore_errors=True)

    def _save(self) -> None:
        try:
            written = self._written()
            if self._given_up:
                shutil.rmtree(written, ignore_errors=True)
                return
            shutil.rmtree(self._target, ignore_errors=True)
            written.rename(self._target)
            with self._lock:
                self._failure = None
                late = self._given_up
            if late:
                shutil.rmtree(self._target, ignore_errors=True)
        except (ReplayError, OSError, ValueError) as error:
            self._failure = str(error) or type(error).__name__
            logging.warning("the tables at %s were not saved: %s", self.address, error)
        finally:
            self.done.set()
            self.set_aside.set()

    def _written(self) -> pathlib.Path:
        """Has the server save; blocks until it has, and returns where."""
        # Of a learner before this one, or an attempt that was given up.
        before = folders.begun(self.folder)
        watching = threading.Thread(target=self._watch, args=(before,), name="snapshot begins", daemon=True)
        watching.start()
        server = ServerCalls(self.address)
        try:
            written = pathlib.Path(server.checkpoint(_WRITE_SECONDS))
        finally:
            server.close()
        if self._begun not in (None, written):
            # Somebody else asked it too, and nobody knows when it has set aside what it wrote for us.
            shutil.rmtree(written, ignore_errors=True)
            raise ReplayError(f"it was saving to {self._begun} as well")
        return written

    def _watch(self, before: Collection[pathlib.Path]) -> None:
        """Looks for what the server writes once it has set its tables aside."""
        while not self.done.wait(_LOOK_SECONDS):
            begun = folders.begun(self.folder) - set(before)
            if begun:
                self._begun = min(begun)
                self.set_aside.set()
                return
