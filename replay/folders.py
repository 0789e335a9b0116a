"""Where the tables of a data set are saved; free of Reverb, so that a launcher can use it.

A shard's folder holds `<step>/`, which is what Reverb's server wrote, for the steps of the
learner's own checkpoints, and `new/`, where it writes.
"""

import pathlib
import shutil
from collections.abc import Collection

NEW = "new"
# Reverb writes the tables' settings, their items, the chunks that those refer to, and "DONE", in this
# order. It copies each table's items, with references to its chunks, under the table's lock; all are copied
# before the second file is made (reverb/cc/platform/tfrecord_checkpointer.cc, 0.14).
_ITEMS = "items.tfrecord"


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


def begun(folder: pathlib.Path) -> set[pathlib.Path]:
    """What a server is writing, or has written, in a shard's folder, once it has copied its tables.

    What the tables take in or give out afterwards is not in there.
    """
    return {items.parent for items in (folder / NEW).glob(f"*/{_ITEMS}")}
