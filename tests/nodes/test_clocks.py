"""The time of the races: one a shard, and told without making anybody wait."""

import threading

import jax
import numpy as np

from classact.nodes import batches, cursors, saving, training
from classact.nodes.clocks import ClockFollower, Clocks
from classact.selection.race import Clock

SOON = 20.0


def test_each_shard_has_its_own():
    clocks = Clocks(2)
    assert clocks.all() == [Clock(), Clock()]
    clocks.drawn(1, np.array([0.5, 3.0]))
    assert clocks.all() == [Clock(), Clock((3.0,))]
    assert Clocks(2, clocks.all()).all() == clocks.all()


class Learner:
    """Tells the next clock each time, or fails."""

    def __init__(self, *clocks):
        self._clocks = list(clocks)
        self.asked, self.answered = [], threading.Semaphore(0)

    def get_clock(self, data_set, shard):
        self.asked.append((data_set, shard))
        self.answered.release()
        clock = self._clocks.pop(0) if len(self._clocks) > 1 else self._clocks[0]
        if clock is None:
            raise RuntimeError("gone")
        return clock.to_json()


def until(condition, pause):
    for _ in range(int(SOON / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come")


def test_it_is_asked_for_each_time_that_it_is_read():
    stop, learner = threading.Event(), Learner(Clock((1.0,)), Clock((2.0,)))
    follower = ClockFollower(learner, "icons", 3, stop)
    assert learner.answered.acquire(timeout=SOON)
    until(lambda: follower() == Clock((2.0,)), stop)
    assert set(learner.asked) == {("icons", 3)}
    stop.set()


def test_a_learner_that_is_gone_leaves_the_last_one(monkeypatch):
    monkeypatch.setattr("classact.nodes.clocks._RETRY_SECONDS", 0.05)
    stop, learner = threading.Event(), Learner(Clock((1.0,)), None, None, Clock((2.0,)))
    follower = ClockFollower(learner, "icons", 0, stop)
    until(lambda: follower() == Clock((1.0,)), stop)
    until(lambda: follower() == Clock((2.0,)), stop)
    assert len(learner.asked) >= 4
    stop.set()


class Checkpointer:
    """Keeps what it is given."""

    def kept(self):
        return []

    def save(self, step, state, data):
        self.data = data


def test_they_are_saved_as_they_were_before_the_tables():
    clocks, kept = Clocks(1, [Clock((4.0,))]), Checkpointer()

    class Tables:
        def begin(self, step):
            # Meanwhile the learner's readers draw on.
            clocks.drawn(0, np.array([7.0]))
            return self

        def wait_set_aside(self, timeout):
            pass

        def is_set_aside(self):
            return True

        def finish(self, kept, timeout):
            pass

    state = training.TrainState(np.int32(3), jax.random.key(0), {})
    nothing = batches.Batches({}, {}, threading.Event())
    saving.Saver(kept, cursors.Cursors(), nothing, {"icons": Tables()}, {"icons": clocks}).save(3, state)
    assert kept.data.clocks == {"icons": [Clock((4.0,))]}
    assert clocks.all() == [Clock((7.0,))]
