"""An endless, resumable stream of IID batches over a source."""

from typing import Any

import numpy as np

from classact.data.resumable import Stream, newest_cursors
from classact.data.shares import Remainder

__all__ = ["IIDStream", "newest_cursors"]


class IIDStream(Stream[Remainder]):
    """Draws batches without replacement within an epoch, reshuffled each epoch, for ever.

    Every reader of a seed knows each epoch's permutation, and takes every
    `num_readers`-th example of it: readers never meet in an epoch, and together
    they read all of it. A batch may straddle two epochs. Damaged examples that
    the source leaves out are made up for by the following ones.

    A stream goes on from the last cursors of its readers. As many readers as
    before continue each from its own. Another number of readers is a new
    generation: what all the earlier ones left unread of the epochs they had begun
    is dealt out among the new ones, epoch by epoch in the order of the
    permutation, and then whole epochs follow; see `shares`. Each reader finds
    this from the cursors alone. An example that was read after the last cursor is
    read again.

    `next` reads in the calling thread and blocks as long as the source does. The
    stream holds 8 bytes per example of its share (while it shuffles, 8 per
    example of the source, or up to 25 in an epoch that an earlier generation
    began). It isn't safe to share between threads.
    """

    def _whole(self) -> Remainder:
        return Remainder(self._source.num_examples)

    def _left(self, value: Any) -> Remainder:
        return Remainder.from_json(self._source.num_examples, value)

    def _begin(self, epoch: int, position: int) -> np.ndarray:
        """What this reader reads of an epoch, in order: int64[about num_examples / num_readers]."""
        del position
        rng = np.random.default_rng([self._seed, epoch])
        order = self._remainder.unread(rng.permutation(self._source.num_examples), epoch)
        return order[self._reader :: self._num_readers].copy()
