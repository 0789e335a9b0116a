"""What follows from a task's end, tried without any task."""

import os
import signal

import pytest

from classact.launch.engine import Crash, Ended, Engine, Patience, awaited_names
from classact.launch.outcome import LaunchError

OUCH = Crash("replay crashed", "Traceback: ouch")
LONG = 1000.0


class Stub(Engine):
    """An engine whose tasks end when and how the test says."""

    def __init__(self, *names, when_stopped=(), when_killed=(), **patience):
        awaited = [name for name in names if name.startswith("learner")]
        super().__init__(names, awaited, Patience(**patience), on_tick=None)
        self.done = []
        self._replies = {"stop": when_stopped, "kill": when_killed}

    def stop(self):
        self._reply("stop")

    def kill(self):
        self._reply("kill")

    def _reply(self, word):
        self.done.append(word)
        for event in self._replies[word]:
            self.events.put(event)

    def reap_seconds(self):
        return 0.1

    def run(self, *events):
        for event in events:
            self.events.put(event)
        with self.interrupts():
            return self.watch()


def test_the_awaited_tasks_success_completes_the_run():
    engine = Stub("learner-0", "learner-1", "replay", when_stopped=[Ended("replay")])
    outcome = engine.run(Ended("learner-0"), Ended("learner-1"))
    assert (outcome.status, outcome.message, outcome.stuck) == ("completed", "", ())
    assert engine.done == ["stop"]


def test_others_may_end_before():
    engine = Stub("learner", "evaluator", "replay", when_stopped=[Ended("replay")])
    assert engine.run(Ended("evaluator"), Ended("learner")).status == "completed"


def test_crashes_after_the_stop_do_not_count():
    engine = Stub("learner", "replay", when_stopped=[Ended("replay", OUCH)])
    assert engine.run(Ended("learner")).status == "completed"


def test_a_crash_fails_the_run_after_the_grace():
    engine = Stub("learner", "replay", when_stopped=[Ended("learner")], crash_grace=0.05)
    outcome = engine.run(Ended("replay", OUCH))
    assert (outcome.status, outcome.failed_task) == ("failed", "replay")
    assert (outcome.message, outcome.traceback) == (OUCH.message, OUCH.traceback)
    assert engine.done == ["stop"]


def test_success_within_the_grace_is_success():
    engine = Stub("learner", "replay", crash_grace=LONG)
    outcome = engine.run(Ended("replay", OUCH), Ended("learner"))
    assert (outcome.status, outcome.failed_task) == ("completed", None)
    assert OUCH.message in outcome.message


def test_an_awaited_tasks_crash_has_no_grace():
    engine = Stub("learner", "replay", when_stopped=[Ended("replay")], crash_grace=LONG)
    assert engine.run(Ended("learner", OUCH)).failed_task == "learner"


def test_the_first_crash_is_the_runs():
    engine = Stub("learner", "replay", "evaluator", when_stopped=[Ended("evaluator")], crash_grace=LONG)
    outcome = engine.run(Ended("replay", OUCH), Ended("learner", Crash("lost its replay", "")))
    assert (outcome.status, outcome.failed_task) == ("failed", "replay")


def test_a_crash_of_all_is_a_failure():
    engine = Stub("replay", crash_grace=LONG)
    assert engine.run(Ended("replay", OUCH)).failed_task == "replay"


def test_a_task_may_end_the_run():
    engine = Stub("learner", "evaluator", when_stopped=[Ended("learner")])
    assert engine.run(Ended("evaluator", stops_run=True)).status == "completed"


def test_a_signal_interrupts_the_run():
    engine = Stub("learner", when_stopped=[Ended("learner")])
    with engine.interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        outcome = engine.watch()
    assert (outcome.status, outcome.signal) == ("interrupted", signal.SIGTERM)
    assert engine.done == ["stop"]


def test_a_signal_to_a_task_on_its_host_interrupts_the_run():
    engine = Stub("learner", "replay", when_stopped=[Ended("learner", signal=signal.SIGTERM)])
    outcome = engine.run(Ended("replay", OUCH, signal=signal.SIGTERM))
    assert (outcome.status, outcome.signal, outcome.exit_status) == ("interrupted", signal.SIGTERM, 143)
    assert "SIGTERM to task replay" in outcome.message
    assert engine.done == ["stop"]


def test_a_signal_within_the_grace_hides_no_crash():
    engine = Stub("learner", "replay", when_stopped=[Ended("learner")], crash_grace=LONG)
    with engine.interrupts():
        engine.events.put(Ended("replay", OUCH))
        os.kill(os.getpid(), signal.SIGTERM)
        outcome = engine.watch()
    assert (outcome.status, outcome.failed_task) == ("failed", "replay")


def test_a_second_signal_kills_at_once():
    engine = Stub("learner", when_killed=[Ended("learner", OUCH)], stop_notice=LONG)
    with engine.interrupts():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        outcome = engine.watch()
    assert (outcome.status, outcome.failed_task) == ("interrupted", None)
    assert engine.done == ["stop", "kill"]


def test_what_does_not_stop_is_killed_after_the_notice():
    engine = Stub("learner", "replay", when_killed=[Ended("replay", OUCH)], stop_notice=0.05)
    assert engine.run(Ended("learner")).status == "completed"
    assert engine.done == ["stop", "kill"]


def test_what_cannot_be_killed_is_named():
    engine = Stub("learner", "replay", "evaluator", stop_notice=0.05)
    outcome = engine.run(Ended("learner"))
    assert (outcome.status, outcome.stuck) == ("completed", ("evaluator", "replay"))
    engine.abort()  # There is nothing more to do, and it does not wait again.
    assert engine.done == ["stop", "kill"]


def test_abort_kills_what_runs():
    engine = Stub("learner", when_killed=[Ended("learner", OUCH)])
    engine.abort()
    assert (engine.done, engine.running) == (["kill"], set())
    engine.abort()
    assert engine.done == ["kill"]


def test_awaited_tasks_are_those_of_the_labels():
    labels = {"learner": "learner", "run_loop-0": "run_loop", "run_loop-1": "run_loop"}
    assert awaited_names(["run_loop"], labels) == {"run_loop-0", "run_loop-1"}


@pytest.mark.parametrize("until", [[], ["learner", "trainer"]])
def test_unknown_awaited_labels_are_refused(until):
    with pytest.raises(LaunchError, match=r"until = .*learner, replay/icons"):
        awaited_names(until, {"learner": "learner", "replay-icons": "replay/icons"})
