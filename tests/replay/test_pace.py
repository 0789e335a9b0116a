"""A batch is drawn just in time, and at once wherever that might be too late."""

import pytest

from classact.replay import pace


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(pace.time, "monotonic", made)
    return made


def after(clock, intervals, draws):
    made = pace.Pace()
    made.taken()
    for interval, draw in zip(intervals, draws, strict=True):
        made.drawn(draw)
        clock.now += interval
        made.taken()
    return made


def test_the_first_batches_are_drawn_at_once(clock):
    assert pace.Pace().delay() == 0
    assert after(clock, [1.0] * 4, [0.1] * 4).delay() == 0


def test_a_steady_learner_gets_each_batch_twice_a_draw_before_it_asks(clock):
    steady = after(clock, [1.0] * 9, [0.1] * 9)
    assert steady.delay() == pytest.approx(0.8)
    clock.now += 0.5
    assert steady.delay() == pytest.approx(0.3)
    clock.now += 0.5
    assert steady.delay() == 0


def test_the_shortest_interval_and_the_longest_draw_count_as_long_as_they_are_remembered(clock):
    assert after(clock, [1.0] * 8 + [0.6] + [1.0] * 4, [0.1] * 12 + [0.2]).delay() == pytest.approx(0.2)
    assert after(clock, [0.6] + [1.0] * 5, [0.2] + [0.1] * 5).delay() == pytest.approx(0.8)


def test_what_comes_later_is_drawn_ahead_only_if_drawing_takes_long(clock):
    quick = after(clock, [1.0] * 9, [0.1] * 9)
    assert [quick.delay(ahead) for ahead in (1, 2, 3)] == pytest.approx([0.8, 1.8, 2.8])
    slow = after(clock, [1.0] * 9, [1.2] * 9)
    assert [slow.delay(ahead) for ahead in (1, 2, 3, 4)] == pytest.approx([0.0, 0.0, 0.6, 1.6])


@pytest.mark.parametrize("draw", [0.5, 1.0, 30.0])
def test_who_waits_for_batches_waits_for_nothing_else(clock, draw):
    assert after(clock, [1.0] * 9, [draw] * 9).delay() == 0
