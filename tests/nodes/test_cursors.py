"""Cursors reach the learner, and the furthest of each reader counts."""

import json
import threading

import numpy as np
import pytest

from classact.data import source, stream
from classact.nodes import cursors

SOON = 20.0


def reader(number, batches, found=None):
    data = source.ArraySource("ten", np.zeros((10, 1, 1, 1), np.uint8), np.zeros(10, np.int64), 1)
    made = stream.IIDStream(data, 2, 0, number, 2, found)
    for _ in range(batches):
        next(made)
    return made


def test_the_furthest_of_each_reader_counts():
    known = cursors.Cursors({"digits": [reader(0, 1).cursor]})
    known.put("digits", reader(1, 1).cursor)
    known.put("digits", reader(0, 2).cursor)
    known.put("other", reader(0, 1).cursor)
    assert known.get("digits") == [reader(0, 2).cursor, reader(1, 1).cursor]
    assert set(known.all()) == {"digits", "other"}
    assert known.get("nothing") == []


def test_they_let_a_stream_go_on():
    known = cursors.Cursors()
    known.put("digits", json.loads(json.dumps(reader(0, 1).cursor)))
    again = reader(0, 0, known.get("digits"))
    np.testing.assert_array_equal(next(again)["id"], next(reader(0, 1))["id"])


class Learner:
    def __init__(self, fails):
        self.told, self._fails, self.heard = [], fails, threading.Event()

    def report_cursor(self, data_set, cursor):
        self._fails -= 1
        if self._fails >= 0:
            raise RuntimeError("not there")
        self.told.append((data_set, json.loads(cursor)))
        self.heard.set()


@pytest.mark.parametrize("fails", [0, 2])
def test_a_report_reaches_the_learner_even_if_it_was_gone(fails):
    stop = threading.Event()
    learner = Learner(fails)
    cursors.Reporter(learner, "digits", stop)({"read": 3})
    assert learner.heard.wait(SOON)
    assert learner.told == [("digits", {"read": 3})]
    stop.set()


def test_what_the_tables_held_is_read_again_if_they_are_lost():
    known = cursors.Cursors(table_batches={"digits": 2})
    reports = [reader(0, batches).cursor for batches in range(1, 5)]
    known.put("digits", reports[0])
    known.put("digits", reports[1])
    # Its first two batches may still be in the tables.
    assert known.all_before_tables() == {"digits": []}
    for cursor in reports[2:]:
        known.put("digits", cursor)
    assert known.all_before_tables() == {"digits": [reports[1]]}
    assert known.all() == {"digits": [reports[3]]}


def test_before_enough_reports_a_stream_goes_on_from_the_checkpoint():
    saved = reader(0, 1).cursor
    known = cursors.Cursors({"digits": [saved]}, {"digits": 3})
    known.put("digits", reader(0, 2).cursor)
    assert known.all_before_tables() == {"digits": [saved]}


def test_cursors_of_readers_that_are_gone_do_not_count():
    known = cursors.Cursors({"digits": [reader(0, 1).cursor, reader(1, 1).cursor]})
    data = source.ArraySource("ten", np.zeros((10, 1, 1, 1), np.uint8), np.zeros(10, np.int64), 1)
    other = stream.IIDStream(data, 2, 0, 0, 1, known.get("digits"))
    next(other)
    known.put("digits", reader(0, 2).cursor)
    known.put("digits", other.cursor)
    assert known.get("digits") == [other.cursor]
