"""Who opens its data says so, and it is believed for a while."""

import threading
import time

import pytest

from classact.data import announced
from classact.nodes import batches, errors, opening, silence

SOON = 10.0


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def openings(clock):
    return opening.Openings(clock)


def test_nothing_is_opened_unless_somebody_says_so(openings):
    openings.put("pairs", 5.0)
    assert openings.seconds("pairs") == 5
    assert openings.seconds("labels") is None


def test_a_host_that_opens_data_itself_knows_it_whatever_the_first_one_does(openings):
    """With `replay.images=ids`, or a recorded order, each host opens them, and one may take longer."""
    asked = []
    seconds = opening.here_or_there(openings, lambda data_set: asked.append(data_set) or 7.0)
    assert seconds("pairs") == 7 and asked == ["pairs"]
    openings.put("pairs", 5.0)
    assert seconds("pairs") == 5 and asked == ["pairs"]


def test_who_falls_silent_is_forgotten(openings, clock):
    openings.put("pairs", 5.0)
    clock.now += 9
    assert openings.seconds("pairs") == 14
    clock.now += 1.5
    assert openings.seconds("pairs") is None
    openings.put("pairs", 1.0)
    assert openings.seconds("pairs") == 1


def test_of_several_the_one_that_got_on_last_counts(openings, clock):
    openings.put("pairs", 1.0)
    clock.now += 2
    openings.put("pairs", 5.0)
    assert openings.seconds("pairs") == 3
    # The first one gets on.
    openings.put("pairs", 0.5)
    assert openings.seconds("pairs") == 0.5


class Learner:
    def __init__(self, error=None):
        self.told, self.error = [], error
        self.heard = threading.Event()

    def report_opening(self, data_set, seconds):
        self.told.append((data_set, seconds))
        self.heard.set()
        if self.error is not None and len(self.told) == 1:
            raise self.error


def assert_nobody_tells():
    for thread in threading.enumerate():
        if thread.name == "opening":
            thread.join(SOON)
            assert not thread.is_alive()


def test_it_is_said_again_and_again_until_it_is_open(monkeypatch):
    monkeypatch.setattr(opening, "_SAY_SECONDS", 0.02)
    learner = Learner(RuntimeError("not there yet"))
    with opening.told(learner, "pairs"):
        deadline = time.monotonic() + SOON
        while len(learner.told) < 4:
            assert time.monotonic() < deadline
    assert_nobody_tells()
    names, seconds = zip(*learner.told, strict=True)
    assert set(names) == {"pairs"}
    assert list(seconds) == sorted(seconds)
    assert seconds[0] < seconds[-1] < SOON


def test_what_gets_on_is_said_and_a_stand_still_is_not_forgiven(monkeypatch):
    monkeypatch.setattr(opening, "_SAY_SECONDS", 0.01)
    learner = Learner()

    def told_after(seconds):
        """What is said next, of a time from then on."""
        wait = threading.Event()
        wait.wait(seconds)
        before = len(learner.told)
        deadline = time.monotonic() + SOON
        while len(learner.told) < before + 2 and time.monotonic() < deadline:
            wait.wait(0.001)
        return learner.told[-1][1]

    with opening.told(learner, "pairs"):
        assert told_after(0.4) >= 0.4
        announced.progressed()
        began = time.monotonic()
        assert told_after(0.0) <= time.monotonic() - began
        # Of another thread, which opens something else.
        threading.Thread(target=announced.progressed).start()
        assert told_after(0.3) >= 0.3
    announced.progressed()


def test_a_failure_to_open_ends_it_too(monkeypatch):
    monkeypatch.setattr(opening, "_SAY_SECONDS", 0.02)
    learner = Learner()
    with pytest.raises(LookupError), opening.told(learner, "pairs"):
        assert learner.heard.wait(SOON)
        raise LookupError
    assert_nobody_tells()


def test_nobody_need_be_told():
    with opening.told(None, "pairs"):
        pass


class Nothing:
    """A data set that delivers nothing."""

    def next(self, timeout):
        threading.Event().wait(0.01)
        raise TimeoutError("nothing there")

    def close(self):
        pass


def draws(seconds, limit=0.1, stop=None):
    """What waiting ends with, and how long it took; `seconds(passed)` is how long it has been opened."""
    began = time.monotonic()
    made = batches.Batches(
        {"pairs": Nothing()},
        {},
        stop or threading.Event(),
        limit,
        opening_seconds=lambda name: seconds(time.monotonic() - began) if name == "pairs" else 1 / 0,
    )
    try:
        return made.draw(), time.monotonic() - began
    except errors.NoDataError as error:
        return str(error), time.monotonic() - began


def test_opening_does_not_count_as_silence_and_what_follows_does():
    message, took = draws(lambda passed: passed if passed < 0.5 else None)
    assert "delivered no batch for 0.1 s (nothing there); see" in message
    assert 0.5 < took < 5


def test_a_data_set_that_is_opened_for_ever_ends_the_run(monkeypatch):
    monkeypatch.setattr(opening, "LIMIT_SECONDS", 4000.0)
    message, took = draws(lambda passed: 3999.7 + passed)
    assert "its run loops are opening their data, and last got on 4000 s ago" in message
    assert 0.3 < took < 5


def test_a_stop_ends_the_wait_for_data_that_are_opened():
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    found, took = draws(lambda passed: passed, stop=stop)
    assert found is None
    assert took < 5


def test_the_wait_for_data_that_are_opened_is_written_down(monkeypatch, caplog):
    monkeypatch.setattr(silence, "_SAY_SECONDS", 0.1)
    draws(lambda passed: 60.0 if passed < 0.35 else None)
    said = [line for line in caplog.messages if "no batch of pairs yet" in line]
    assert 1 <= len(said) <= 3
    assert "opening their data, and last got on 60 s ago" in said[0]
