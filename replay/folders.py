"""Where the tables of a data set are saved; free of Reverb, so that a launcher can use it.

A shard's folder holds `<step>/`, which is what Reverb's server wrote, for the steps of the
learner's own checkpoints, and `new/`, where it writes.
"""

import pathlib
import shutil
from collections.abc import Collection

NEW = "new"


def shard_folders(workdir: pathlib.Path, data_set: str, shards: int) -> list[pathlib.Path]:
    """The folder of each shard of a data set: `replay/<data set>`, or in it one for each."""
    folder = workdir / "replay" / data_set
    return [folder] if shards == 1 else [folder / str(shard) for shard in range(shards)]


def steps(folder: pathlib.Path) -> list[int]:
    """Learner steps whose tables are in a shard's folder, complete."""
    # Reverb writes this file last.
    return [int(done.parent.name) for done in folder.glob("*/DONE") if done.parent.name.isdigit()]


def keep(folder: pathlib.Path, kept: Collection[int]) -> None:
    """Removes the tables of all other steps from a shard's folder."""
    for step in set(steps(folder)) - set(kept):
        shutil.rmtree(folder / str(step))
