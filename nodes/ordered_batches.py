"""Batches in an order that is known beforehand: read by the learner itself, ahead of their use."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from classact.nodes.batches import Sampled
from classact.replay.records import SCORE_FIELDS

_POLL_SECONDS = 0.5
# Batches that wait to be used.
_AHEAD = 2

Batch = Mapping[str, np.ndarray]


class OrderedBatches:
    """Stands in for `replay.dataset.ReplayDataset`: its order is exact, whatever dies and is started again.

    A replay could not promise that. Its writer repeats what it does not know to have arrived; here
    the next update's number alone says what comes.
    """

    def __init__(
        self,
        open_stream: Callable[[], Iterator[Batch]],
        transfer: Callable[[Batch], Sampled],
        stop: threading.Event,
        name: str,
    ) -> None:
        """Starts the thread that opens the data and reads ahead.

        Args:
            open_stream: opens the data; their batches without end.
            transfer: applied to each batch in the thread, as `batches.to_device`.
            stop: ends the thread, after the batch that it reads.
            name: of the data set.
        """
        self._open_stream = open_stream
        self._transfer = transfer
        self._stop = stop
        self._name = name
        self._queue: queue.Queue[Sampled | Exception] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._read, name=f"reader {name}", daemon=True)
        self._thread.start()

    def next(self, timeout: float) -> Sampled:
        """Returns the next batch.

        Args:
            timeout: seconds to block at most.

        Raises:
            TimeoutError: if it has not been read in time.
            Exception: what reading it raised.
        """
        try:
            found = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no batch of {self._name} was read in {timeout} s") from None
        if isinstance(found, Exception):
            raise found
        return found

    def remember(self, batches: int) -> None:
        """Nothing, see `recent`."""

    @property
    def first_left(self) -> int:
        """None: an earlier process leaves no batches, see `recent`."""
        return 0

    def recent(self, batches: int) -> np.ndarray:
        """Nothing: who goes on from a checkpoint reads again what comes after its step."""
        del batches
        return np.empty((0, 1), np.uint8)

    def close(self, timeout: float = 5.0) -> None:
        """Waits for the thread; call it after setting `stop`."""
        self._thread.join(timeout)

    def _read(self) -> None:
        try:
            for batch in self._open_stream():
                self._put(self._transfer(_with_no_score(batch)))
                if self._stop.is_set():
                    return
        # Whatever it was: who waits for a batch must hear of it.
        except Exception as error:
            self._put(error)

    def _put(self, item: Sampled | Exception) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return


def _with_no_score(batch: Batch) -> dict[str, np.ndarray]:
    """With the fields that a replay adds: nothing was scored."""
    rows = len(batch["id"])
    score, step = (dtype for _, dtype in SCORE_FIELDS)
    return {**batch, "score": np.zeros(rows, score), "scored_step": np.full(rows, -1, step)}
