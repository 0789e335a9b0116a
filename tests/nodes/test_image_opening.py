"""What was carried becomes images before it is moved, one batch at a time, and what hangs is seen."""

import threading
import time

import numpy as np
import pytest

from classact.data.source import DataError
from classact.nodes import activity
from classact.nodes.image_opening import Transfer

BATCH = {"id": np.arange(2)}


class Opener:
    replaced = 3

    def __init__(self):
        self.entered, self.gate, self.at_once = threading.Semaphore(0), threading.Semaphore(0), 0

    def __call__(self, batch, progressed):
        progressed()
        self.at_once += 1
        self.entered.release()
        assert self.gate.acquire(timeout=20) and self.at_once == 1
        self.at_once -= 1
        return {**batch, "image": np.zeros((2, 1, 1, 1), np.uint8)}


def test_pixels_go_as_they_are_and_count_nothing():
    transfer = Transfer("digits", None, lambda batch: ("moved", batch))
    assert transfer(BATCH) == ("moved", BATCH)
    assert transfer.counted(lambda: {"size": 1.0})() == {"size": 1.0}


def test_two_tables_take_turns_and_what_hangs_is_told():
    opener, made, moved = Opener(), [], []
    transfer = Transfer("digits", lambda: made.append(1) or opener, lambda batch: moved.append(batch))
    counted = transfer.counted(lambda: {"size": 1.0})
    assert counted() == {"size": 1.0, "replaced": 0.0}
    readers = [threading.Thread(target=transfer, args=(BATCH,), daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert opener.entered.acquire(timeout=20)
    # One is at work, and as it does not get on it counts as stuck; the other waits for it.
    deadline = time.monotonic() + 20
    while "waiting for images of its other table" not in (said := activity.report().doing):
        assert time.monotonic() < deadline
    assert said.count("images of digits: ") == 2 and "working, 1 done" in said
    opener.gate.release(2)
    for reader in readers:
        reader.join(20)
    assert len(made) == 1 and [set(batch) for batch in moved] == [{"id", "image"}] * 2
    assert counted() == {"size": 1.0, "replaced": 3.0}
    assert "images of digits" not in activity.report().doing


def test_errors_of_the_opener_go_on_and_leave_nothing_locked():
    tries = []

    def make_opener():
        tries.append(1)
        raise DataError("no such folder")

    transfer = Transfer("digits", make_opener, lambda batch: batch)
    for _ in range(2):
        with pytest.raises(DataError, match="no such folder"):
            transfer(BATCH)
    assert len(tries) == 2
