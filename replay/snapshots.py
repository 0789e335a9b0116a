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

# Far above what a caller waits: what comes too late is still removed.
_CALL_SECONDS = 1800.0


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
            timeout: seconds that saving may take.
        """
        self._shards = tuple(zip(addresses, folders, strict=True))
        self._timeout = timeout

    def save(self, step: int, kept: Collection[int]) -> None:
        """Saves all tables as they are now; their servers answer nobody meanwhile.

        Blocks until all are on disk, `timeout` seconds at most. If one could not be saved
        in time, the others' are removed, and its own as soon as it is done: a run that goes
        on from this step reads again what all tables held.

        Args:
            step: of the learner.
            kept: steps whose tables stay beside this one.

        Raises:
            SnapshotError: if a server did not save in time, or could not.
        """
        attempts = [_Attempt(address, folder, step) for address, folder in self._shards]
        deadline = time.monotonic() + self._timeout
        for attempt in attempts:
            attempt.thread.join(max(0.0, deadline - time.monotonic()))
        failures = [why for attempt in attempts if (why := attempt.failure(self._timeout))]
        if failures:
            for attempt in attempts:
                attempt.give_up()
            raise SnapshotError("; ".join(failures))
        for _, folder in self._shards:
            try:
                folders.keep(folder, {*kept, step})
            # They are in nobody's way but the disk's; the next time is another try.
            except OSError as error:
                logging.warning("older tables in %s were not removed: %s", folder, error)

    def discard(self, step: int) -> None:
        """Removes what was saved at a step, if anything was."""
        for _, folder in self._shards:
            shutil.rmtree(folder / str(step), ignore_errors=True)


class _Attempt:
    """The saving of one shard, in a thread: a server that has begun to save cannot be told to stop."""

    def __init__(self, address: str, folder: pathlib.Path, step: int) -> None:
        self._address = address
        self._target = folder / str(step)
        self._lock = threading.Lock()
        self._given_up = False
        self._failure: str | None = ""
        self.thread = threading.Thread(target=self._save, name="replay snapshot", daemon=True)
        self.thread.start()

    def failure(self, timeout: float) -> str | None:
        """What went wrong, or that nothing has come of it in so many seconds; None if it is saved."""
        if self._failure is None:
            return None
        return f"{self._address}: {self._failure or f'no answer in {timeout} s'}"

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
            written = pathlib.Path(self._checkpoint())
            if self._given_up:
                shutil.rmtree(written, ignore_errors=True)
                return
            shutil.rmtree(self._target, ignore_errors=True)
            written.rename(self._target)
        except (ReplayError, OSError, ValueError) as error:
            self._failure = str(error) or type(error).__name__
            logging.warning("the tables at %s were not saved: %s", self._address, error)
            return
        with self._lock:
            self._failure = None
            late = self._given_up
        if late:
            shutil.rmtree(self._target, ignore_errors=True)

    def _checkpoint(self) -> str:
        server = ServerCalls(self._address)
        try:
            return server.checkpoint(_CALL_SECONDS)
        finally:
            server.close()
