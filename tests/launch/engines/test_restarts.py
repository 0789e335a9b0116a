"""When a task that died may live again, by a clock that the test turns."""

import pytest

from classact.launch.engines.restarts import RestartPlan, Restarts


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def plan_of(clock, per_hour):
    plan = RestartPlan(Restarts(per_hour), clock)
    plan.begin("replay")
    return plan


def restart(plan, clock):
    """Lets what is planned happen; returns how long that took."""
    (at,) = plan.times
    before, clock.now = clock.now, max(at, clock.now)
    assert plan.due() == "replay"
    plan.begin("replay")
    assert plan.times == ()
    return clock.now - before


def test_quick_deaths_in_succession_make_the_pauses_longer(clock):
    plan = plan_of(clock, 100)
    pauses = []
    for _ in range(9):
        plan.plan("replay")
        pauses.append(restart(plan, clock))
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_long_life_is_no_quick_death(clock):
    plan = plan_of(clock, 100)
    for lived, pause in [(59, 0), (59, 1), (60, 0), (59, 0), (59, 1)]:
        clock.now += lived
        plan.plan("replay")
        assert restart(plan, clock) == pause


def test_no_more_restarts_within_an_hour_than_allowed(clock):
    plan = plan_of(clock, 2)
    said = []
    for _ in range(2):
        clock.now += 100
        said.append(plan.plan("replay"))
        restart(plan, clock)
    assert said == ["started again (1 of 2 within the hour)", "started again (2 of 2 within the hour)"]
    assert plan.plan("replay") is None
    assert plan.times == () and plan.within_hour("replay") == 2
    # The first one was 100 s ago.
    clock.now += 3499
    assert plan.plan("replay") is None
    clock.now += 1
    assert plan.plan("replay") == "started again (2 of 2 within the hour)"
    restart(plan, clock)
    assert plan.restarts == {"replay": 3}


def test_none_are_allowed_by_default(clock):
    plan = RestartPlan(Restarts(), clock)
    plan.begin("replay")
    assert plan.plan("replay") is None
    assert plan.restarts == {}


def test_a_pause_is_told(clock):
    plan = plan_of(clock, 3)
    plan.plan("replay")
    restart(plan, clock)
    assert plan.plan("replay") == "started again in 1 s (2 of 3 within the hour)"
    assert plan.due() is None
    clock.now += 1
    assert plan.due() == "replay"


def test_tasks_have_lives_of_their_own(clock):
    plan = plan_of(clock, 1)
    plan.begin("learner")
    plan.plan("replay")
    restart(plan, clock)
    assert plan.plan("learner") == "started again (1 of 1 within the hour)"
    assert plan.names == ("replay", "learner")
    plan.cancel()
    assert plan.due() is None and plan.restarts == {"replay": 1}
