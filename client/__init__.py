"""Sub-batches of a run of `classact serve`, for a trainer of anybody's: three lines.

    with classact.client.connect("runs/selection") as selection:
        for batch in selection.batches(rank=rank, world_size=world_size):
            train_step(batch)

It needs NumPy and pyzmq, on Python 3.10 to 3.14, and nothing else of classact; it is also the
whole of the wheel `classact-client`. What it speaks is in `protocol`.
"""

from classact.client.connection import SelectionError
from classact.client.selection import Selection, connect

__all__ = ["Selection", "SelectionError", "connect"]
