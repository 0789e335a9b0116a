"""Batches come in order, in bounded number, with the cursor of what was taken."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.source import ArraySource, DataError
from classact.data.stream import IIDStream
from classact.nodes.read_ahead import ReadAhead

SECONDS = 20.0


class Stream:
    """Counts what is read; fails, ends or waits where it is told to."""

    def __init__(self, size=10, fails_at=None, ends_at=None, gate=None, file_bytes=0):
        self.read, self._size, self._file = 0, size, {}
        if file_bytes:
            self._file = {"file": np.array([bytes(file_bytes)], object)}
        self._fails_at, self._ends_at, self._gate = fails_at, ends_at, gate
        self.reached = [threading.Event() for _ in range(100)]

    @property
    def cursor(self):
        return {"read": self.read}

    def __iter__(self):
        for number in itertools.count():
            if number == self._ends_at:
                return
            if number == self._fails_at:
                raise DataError(f"batch {number}")
            if self._gate is not None:
                self._gate.wait(SECONDS)
            self.read += 1
            self.reached[number].set()
            yield {"id": np.array([number]), "image": np.zeros(self._size - 8, np.uint8), **self._file}


@pytest.fixture
def stop():
    return threading.Event()


def numbers(ahead, count):
    return [int(next(ahead)["id"][0]) for _ in range(count)]


@settings(max_examples=20, deadline=None)
@given(taken=st.integers(0, 12), limit=st.integers(0, 80))
def test_batches_are_those_of_the_stream_and_it_goes_on_from_what_was_taken(taken, limit):
    source = ArraySource("test", np.zeros((23, 2, 2, 1), np.uint8), np.arange(23) % 3, 3)
    expected, read = IIDStream(source, 7, 0), IIDStream(source, 7, 0)
    with ReadAhead(read, threading.Event(), limit) as ahead:
        for _ in range(taken):
            assert next(ahead)["id"].tolist() == next(expected)["id"].tolist()
        cursor = ahead.cursor
    assert cursor == expected.cursor
    again = IIDStream(source, 7, 0, cursors=[cursor])
    assert next(again)["id"].tolist() == next(expected)["id"].tolist()


@pytest.mark.parametrize(
    ("limit", "most", "file_bytes"),
    [(0, 1, 0), (10, 1, 0), (29, 2, 0), (30, 3, 0), (45, 4, 0), (999, 4, 0), (30, 1, 9), (60, 2, 9)],
)
def test_it_reads_no_more_than_fits(stop, limit, most, file_bytes):
    # A file counts with the 8 bytes of what points to it.
    stream = Stream(10, file_bytes=file_bytes)
    with ReadAhead(stream, stop, limit) as ahead:
        for taken in range(4):
            assert stream.reached[taken + most - 1].wait(SECONDS)
            # Were there room for another one, it would be read while this thread waits.
            assert not stream.reached[taken + most].wait(0.02)
            assert numbers(ahead, 1) == [taken]
            assert ahead.cursor == {"read": taken + 1}


def test_what_reading_raises_comes_after_what_was_read(stop):
    with ReadAhead(Stream(fails_at=3), stop) as ahead:
        assert numbers(ahead, 3) == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(DataError, match="batch 3"):
                next(ahead)


def test_a_stream_that_ends_ends(stop):
    with ReadAhead(Stream(ends_at=3), stop) as ahead:
        assert [int(batch["id"][0]) for batch in ahead] == [0, 1, 2]


def test_the_stop_signal_ends_who_waits_for_a_batch(stop):
    gate = threading.Event()
    with ReadAhead(Stream(gate=gate), stop) as ahead:
        threading.Timer(0.05, stop.set).start()
        assert list(ahead) == []
        gate.set()


def test_the_end_of_the_context_ends_the_thread(stop):
    with ReadAhead(Stream(), stop, 30) as ahead:
        numbers(ahead, 2)
    assert not any(thread.name == "reading ahead" for thread in threading.enumerate())
