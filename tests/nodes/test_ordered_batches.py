"""Batches in a known order are read ahead, and what goes wrong in reading reaches who waits."""

import itertools
import threading

import numpy as np
import pytest

from classact.data.source import DataError
from classact.nodes import batches, ordered_batches


@pytest.fixture
def stop():
    event = threading.Event()
    yield event
    event.set()


def numbered():
    for number in itertools.count():
        ids = np.array([number, number + 1])
        yield {"id": ids, "image": np.zeros((2, 1, 1, 1), np.uint8), "label": ids.astype(np.int32)}


def ordered(stop, open_stream=numbered, name="digits"):
    return ordered_batches.OrderedBatches(open_stream, batches.to_device, stop, name)


def test_they_come_in_order_and_without_a_score(stop):
    found = ordered(stop)
    for number in range(6):
        sampled = found.next(10.0)
        assert sampled.ids.tolist() == [number, number + 1]
        assert set(sampled.batch) == {"image", "label"}
        assert sampled.scored_step.tolist() == [-1, -1]
    assert found.recent(3).size == 0


def test_who_waits_hears_of_an_error(stop):
    def broken():
        yield next(numbered())
        raise DataError("example 7 is damaged")

    found = ordered(stop, broken)
    found.next(10.0)
    with pytest.raises(DataError, match="example 7"):
        found.next(10.0)


def test_who_waits_for_data_that_do_not_open_gets_a_time_out(stop):
    opened = threading.Event()

    def slow():
        opened.wait(30)
        return numbered()

    found = ordered(stop, slow)
    with pytest.raises(TimeoutError, match="no batch of digits"):
        found.next(0.01)
    opened.set()
    assert found.next(10.0).ids.tolist() == [0, 1]


def test_it_ends_although_nobody_takes_what_was_read(stop):
    found = ordered(stop, name="full")
    found.next(10.0)
    stop.set()
    found.close()
    assert not any(thread.name == "reader full" for thread in threading.enumerate())
