"""The tables on disk: one folder for each learner step at which they were saved.

See `folders` for what is where. A server that starts loads the newest step: a run that
resumes from an earlier one has removed those after it.
"""

import logging
import pathlib
import shutil
import threading
from collections.abc import Collection, Sequence

import reverb

from classact.replay import folders


class SnapshotError(RuntimeError):
    """The tables could not be saved."""


def checkpointer(folder: pathlib.Path) -> reverb.checkpointers.DefaultCheckpointer:
    """What a shard's server saves and loads with: it loads the newest step, if there is one.

    What the server of an earlier process wrote and nobody took is removed.
    """
    shutil.rmtree(folder / folders.NEW, ignore_errors=True)
    newest = max(folders.steps(folder), default=None)
    return reverb.checkpointers.DefaultCheckpointer(
        str(folder / folders.NEW),
        fallback_checkpoint_path=None if newest is None else str(folder / str(newest)),
    )


class Snapshots:
    """Saves the tables of several shards together."""

    def __init__(
        self, addresses: Sequence[str], folders: Sequence[pathlib.Path], timeout: float = 120.0
    ) -> None:
        """Connects to nothing yet.

        Args:
            addresses: `host:port` of the replay server of each shard.
            folders: of each; this process and the server see it under the same path.
            timeout: seconds that saving may take.
        """
        self._shards = tuple(zip(addresses, folders, strict=True))
        self._timeout = timeout

    def save(self, step: int, kept: Collection[int]) -> None:
        """Saves all tables as they are now; their servers answer nobody meanwhile.

        Blocks until all are on disk, `timeout` seconds at most.

        Args:
            step: of the learner.
            kept: steps whose tables stay beside this one.

        Raises:
            SnapshotError: if a server did not save in time, or could not.
        """
        failures: dict[str, str] = {}
        threads = [
            threading.Thread(target=self._save_shard, args=(address, folder, step, failures), daemon=True)
            for address, folder in self._shards
        ]
        for address, _ in self._shards:
            failures[address] = f"no answer in {self._timeout} s"
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self._timeout)
        if failures:
            raise SnapshotError("; ".join(f"{address}: {why}" for address, why in sorted(failures.items())))
        for _, folder in self._shards:
            folders.keep(folder, {*kept, step})

    def _save_shard(self, address: str, folder: pathlib.Path, step: int, failures: dict[str, str]) -> None:
        try:
            written = pathlib.Path(reverb.Client(address).checkpoint())
            target = folder / str(step)
            shutil.rmtree(target, ignore_errors=True)
            written.rename(target)
        # Reverb's errors have no common class but this one.
        except (RuntimeError, reverb.ReverbError, OSError) as error:
            failures[address] = str(error)
            logging.warning("the tables at %s were not saved: %s", address, error)
        else:
            del failures[address]
