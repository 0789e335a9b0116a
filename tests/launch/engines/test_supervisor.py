"""What follows from a task's end, tried without any task, and without waiting."""

import errno
import heapq
import itertools
import os
import queue
import signal

import pytest

from classact.launch.engines.events import Asked, Crash, Ended
from classact.launch.engines.interrupts import Interrupt
from classact.launch.engines.outcome import LaunchError, TaskEnd
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.supervisor import Supervisor, Tasks
from classact.launch.engines.terms import Patience, Terms

OUCH = Crash("replay crashed", "Traceback: ouch")
FATAL = Crash("replay crashed", "Traceback: ouch", fatal=True)
LONG = 1000.0


class Events:
    """A queue with a clock: to wait on it is to turn the clock."""

    def __init__(self):
        self.now = 0.0
        self._events = []
        self._order = itertools.count()

    def put(self, event):
        self.put_at(self.now, event)

    def put_at(self, time, event):
        heapq.heappush(self._events, (time, next(self._order), event))

    def get(self, timeout):
        if self._events and self._events[0][0] <= self.now + timeout:
            time, _, event = heapq.heappop(self._events)
            self.now = max(time, self.now)
            return event
        self.now += timeout
        raise queue.Empty


class Stub(Tasks):
    """Tasks that end when and how the test says, and their supervisor.

    `done` says what they were told to do, `asked` and `restarted` at what time.
    """

    reap_seconds = 0.1

    def __init__(self, *names, when_stopped=(), when_killed=(), per_hour=0, lack_seconds=3600.0, **patience):
        self.events = events = Events()
        # "inference-icons-1" is of the group "inference/icons".
        labels = {name: "/".join(word for word in name.split("-") if not word.isdigit()) for name in names}
        terms = Terms(["learner"], Patience(**patience), Restarts(per_hour), lack_seconds=lack_seconds)
        self.supervisor = Supervisor(self, labels, terms, events, clock=lambda: events.now)
        self.done = []
        self.asked = []
        self.started = []
        self.restarted = []
        self.when_restarted = []
        self.ends = {}
        self._replies = {"stop": when_stopped, "kill": when_killed}

    def start(self, name):
        if name not in self.started:
            self.started.append(name)
            return
        self.restarted.append((self.events.now, name))
        if self.when_restarted:
            follows = self.when_restarted.pop(0)
            if isinstance(follows, Exception):
                raise follows
            self.events.put(follows)

    def stop(self, names, notice):
        self.asked.append((self.events.now, sorted(names), notice))
        self._reply("stop")

    def kill(self, names):
        self._reply("kill")

    def end_of(self, name):
        return self.ends.get(name)

    def _reply(self, word):
        self.done.append(word)
        for event in self._replies[word]:
            self.events.put(event)

    def run(self, *events):
        for event in events:
            self.events.put(event)
        with self.supervisor.interrupts():
            return self.supervisor.run()


def test_the_awaited_tasks_success_completes_the_run():
    engine = Stub("learner-0", "learner-1", "replay", when_stopped=[Ended("replay")])
    outcome = engine.run(Ended("learner-0"), Ended("learner-1"))
    assert (outcome.status, outcome.message, outcome.stuck) == ("completed", "", ())
    assert engine.done == ["stop"]


def test_a_run_that_has_diverged_is_not_started_again():
    engine = Stub("learner", per_hour=10)
    crash = Crash("task learner crashed: diverged at step 17", "…", fatal=True, diverged=17)
    outcome = engine.run(Ended("learner", crash))
    assert (outcome.status, outcome.diverged, outcome.restarts) == ("failed", 17, {})
    assert engine.restarted == []


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


def test_a_task_may_end_the_run():
    engine = Stub("learner", "evaluator", when_stopped=[Ended("learner")])
    assert engine.run(Ended("evaluator", stops_run=True)).status == "completed"


def test_a_signal_interrupts_the_run():
    engine = Stub("learner", when_stopped=[Ended("learner")])
    with engine.supervisor.interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        outcome = engine.supervisor.run()
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
    with engine.supervisor.interrupts():
        engine.events.put(Ended("replay", OUCH))
        os.kill(os.getpid(), signal.SIGTERM)
        outcome = engine.supervisor.run()
    assert (outcome.status, outcome.failed_task) == ("failed", "replay")


def test_a_second_signal_kills_at_once():
    engine = Stub("learner", when_killed=[Ended("learner", OUCH)], stop_notice=LONG)
    with engine.supervisor.interrupts():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        outcome = engine.supervisor.run()
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
    engine.supervisor.abort()  # There is nothing more to do, and it does not wait again.
    assert engine.done == ["stop", "kill"]


def test_an_error_in_the_launcher_kills_what_runs():
    engine = Stub("learner", when_killed=[Ended("learner", OUCH)])

    def fail(names):
        raise ZeroDivisionError

    engine.look = fail
    with pytest.raises(ZeroDivisionError):
        engine.run()
    assert (engine.done, engine.supervisor.running) == (["kill"], set())
    engine.supervisor.abort()
    assert engine.done == ["kill"]


def test_a_task_that_cannot_be_started_ends_those_that_were():
    engine = Stub("learner", "replay", when_killed=[Ended("learner", OUCH)])
    begin = engine.start

    def start(name):
        if name == "replay":
            raise OSError("no memory")
        begin(name)

    engine.start = start
    with pytest.raises(OSError, match="no memory"):
        engine.run()
    assert (engine.done, engine.supervisor.running) == (["kill"], set())


def test_awaited_tasks_are_those_of_the_labels():
    labels = {"learner": "learner", "run_loop-0": "run_loop", "run_loop-1": "run_loop"}
    assert Terms(["run_loop"]).awaited(labels) == {"run_loop-0", "run_loop-1"}


class TestRestarts:
    """A task that dies is started again, as long as that is allowed."""

    def test_at_once_on_the_first_death(self, capsys):
        engine = Stub("learner", "replay", when_stopped=[Ended("replay")], per_hour=3)
        engine.events.put_at(5.0, Ended("replay", OUCH))
        engine.events.put_at(9.0, Ended("learner"))
        outcome = engine.run()
        assert (outcome.status, outcome.message, outcome.restarts) == ("completed", "", {"replay": 1})
        assert engine.restarted == [(5.0, "replay")]
        assert engine.asked == [(9.0, ["replay"], 8.0)]
        said = "classact: replay crashed (Traceback: ouch); started again (1 of 3 within the hour)\n"
        assert capsys.readouterr().err == said

    @pytest.mark.parametrize(
        ("traceback", "said"),
        [
            ("", ""),
            ("Traceback:\n  line 1\nKeyError: 'a'\n\n", " (KeyError: 'a')"),
            ("Check failed\nFatal Python error: Aborted\n\nModules: a, b", " (Fatal Python error: Aborted)"),
            ("x" * 1000, f" ({'x' * 200})"),
        ],
    )
    def test_with_its_last_words_in_one_line(self, capsys, traceback, said):
        engine = Stub("learner", "replay", when_stopped=[Ended("replay")], per_hour=1)
        engine.run(Ended("replay", Crash("replay crashed", traceback)), Ended("learner"))
        line = f"classact: replay crashed{said}; started again (1 of 1 within the hour)\n"
        assert capsys.readouterr().err == line

    def test_later_and_later_until_the_limit_fails_the_run(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("learner")], per_hour=8, crash_grace=5.0)
        engine.when_restarted = [Ended("replay", OUCH)] * 8
        outcome = engine.run(Ended("replay", OUCH))
        assert (outcome.status, outcome.failed_task) == ("failed", "replay")
        assert outcome.traceback == OUCH.traceback
        assert outcome.message == "replay crashed; it had been started again 8 times within the hour"
        assert outcome.restarts == {"replay": 8}
        assert [time for time, _ in engine.restarted] == [0, 1, 3, 7, 15, 31, 61, 91]
        # And the grace of the last death.
        assert engine.asked[0][0] == 96

    def test_an_awaited_task_too_though_nothing_runs_meanwhile(self):
        engine = Stub("learner", per_hour=5)
        engine.when_restarted = [Ended("learner", OUCH), Ended("learner", OUCH), Ended("learner")]
        outcome = engine.run(Ended("learner", OUCH))
        assert (outcome.status, outcome.restarts) == ("completed", {"learner": 3})
        assert [time for time, _ in engine.restarted] == [0, 1, 3]

    def test_not_after_a_fatal_crash(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("learner")], per_hour=5)
        outcome = engine.run(Ended("replay", FATAL))
        assert (outcome.status, outcome.failed_task, outcome.restarts) == ("failed", "replay", {})
        assert (outcome.message, engine.restarted) == (FATAL.message, [])

    def test_an_awaited_tasks_fatal_crash_has_no_grace(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("replay")], per_hour=5, crash_grace=LONG)
        outcome = engine.run(Ended("learner", FATAL))
        assert (outcome.failed_task, engine.restarted, engine.events.now) == ("learner", [], 0.0)

    def test_not_what_has_ended_well(self):
        engine = Stub("learner", "evaluator", per_hour=5)
        assert engine.run(Ended("evaluator"), Ended("learner")).restarts == {}
        assert engine.restarted == []

    def test_not_while_the_run_stops(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("replay", OUCH)], per_hour=5)
        outcome = engine.run(Ended("learner"))
        assert (outcome.status, outcome.restarts, engine.restarted) == ("completed", {}, [])

    def test_a_crash_at_the_very_end_is_no_more_than_one_restart(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("replay", OUCH)], per_hour=5)
        outcome = engine.run(Ended("replay", OUCH), Ended("learner"))
        assert (outcome.status, engine.restarted) == ("completed", [(0.0, "replay")])

    def test_not_what_is_pending_when_the_run_ends(self):
        engine = Stub("learner", "replay", per_hour=5)
        engine.when_restarted = [Ended("replay", OUCH)]
        engine.events.put_at(0.5, Ended("learner"))
        outcome = engine.run(Ended("replay", OUCH))
        assert (outcome.status, outcome.stuck, outcome.restarts) == ("completed", (), {"replay": 1})
        assert len(engine.restarted) == 1 and engine.events.now == 0.5

    def test_not_what_is_pending_when_a_signal_comes(self):
        engine = Stub("learner", per_hour=5)
        engine.when_restarted = [Ended("learner", OUCH)]
        engine.events.put_at(0.5, Interrupt(signal.SIGTERM))
        outcome = engine.run(Ended("learner", OUCH))
        assert (outcome.status, outcome.restarts) == ("interrupted", {"learner": 1})
        assert engine.events.now == 0.5

    def test_not_one_of_several_once_another_has_succeeded(self):
        engine = Stub("learner-0", "learner-1", "replay", when_stopped=[Ended("replay")], per_hour=5)
        outcome = engine.run(Ended("learner-0"), Ended("learner-1", OUCH))
        assert (outcome.status, outcome.failed_task, engine.restarted) == ("failed", "learner-1", [])

    def test_not_in_the_grace_of_a_crash_that_ends_the_run(self):
        engine = Stub("learner", "replay", "evaluator", when_stopped=[Ended("learner")], per_hour=5)
        outcome = engine.run(Ended("replay", FATAL), Ended("evaluator", OUCH))
        assert (outcome.failed_task, engine.restarted) == ("replay", [])

    def test_a_start_that_fails_is_another_death(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("learner")], per_hour=2)
        engine.when_restarted = [OSError("no memory"), LaunchError("port taken")]
        outcome = engine.run(Ended("replay", OUCH))
        assert outcome.message.startswith("task replay cannot be started again: port taken; it had been")
        assert outcome.restarts == {"replay": 2}
        assert [time for time, _ in engine.restarted] == [0, 1]

    def test_not_where_its_files_cannot_be_written(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("learner")], per_hour=5)
        engine.when_restarted = [OSError(errno.ENOSPC, "No space left on device")]
        outcome = engine.run(Ended("replay", OUCH))
        assert (outcome.status, outcome.restarts) == ("failed", {"replay": 1})
        assert "cannot be started again: [Errno 28] No space left on device" in outcome.message

    def test_what_all_lives_used_is_counted(self):
        engine = Stub("learner", "replay", when_stopped=[Ended("replay")], per_hour=2)
        engine.ends = {"replay": TaskEnd(-9, 2.0, 50, False)}
        engine.events.put(Ended("replay", OUCH))
        engine.when_restarted = [Ended("learner")]
        outcome = engine.run()
        assert outcome.tasks == {"replay": TaskEnd(-9, 4.0, 50, False)}
        assert outcome.cpu_seconds == 4.0


LACKING = Crash("task learner crashed: no batch of icons", "…", lacks="icons")


class TestLacking:
    """A task to which others delivered nothing is started again, and so are these, once an hour."""

    NAMES = ("learner", "replay-icons", "inference-icons-0", "inference-icons-1", "replay-texts", "evaluator")

    def stub(self, when_stopped=(), **options):
        return Stub(*self.NAMES, when_stopped=when_stopped, **options)

    def test_those_that_should_deliver_are_started_again(self, capsys):
        late = ["inference-icons-0", "inference-icons-1", "replay-icons"]
        # One stops well, one fails as it stops, one was killed.
        ends = [Ended(late[0]), Ended(late[1], OUCH), Ended(late[2], Crash("killed", ""))]
        engine = self.stub(ends, per_hour=3, stop_notice=10.0)
        engine.events.put_at(5.0, Ended("learner", LACKING))
        engine.events.put_at(9.0, Ended("learner"))
        outcome = engine.run()
        assert outcome.status == "completed"
        assert outcome.restarts == dict.fromkeys(["learner", *late], 1)
        assert engine.asked[0] == (5.0, late, 10.0)
        assert sorted(engine.restarted) == [(5.0, name) for name in sorted(["learner", *late])]
        assert (
            f"classact: {', '.join(late)} deliver nothing, and are started again" in capsys.readouterr().err
        )

    def test_one_that_does_not_stop_is_killed_after_the_notice(self):
        engine = Stub(
            "learner", "replay-icons", per_hour=3, stop_notice=10.0, when_killed=[Ended("replay-icons", OUCH)]
        )
        engine.events.put_at(5.0, Ended("learner", LACKING))
        engine.events.put_at(20.0, Ended("learner"))
        engine.events.put_at(20.1, Ended("replay-icons"))
        outcome = engine.run()
        assert (outcome.status, engine.done) == ("completed", ["stop", "kill", "stop"])
        assert engine.restarted == [(5.0, "learner"), (15.0, "replay-icons")]

    def test_a_second_time_within_the_hour_fails_the_run(self):
        engine = self.stub(per_hour=9, crash_grace=0.0)
        engine.events.put_at(5.0, Ended("learner", LACKING))
        engine.events.put_at(900.0, Ended("learner", LACKING))
        outcome = engine.run()
        assert (outcome.status, outcome.failed_task) == ("failed", "learner")
        assert outcome.message.startswith(LACKING.message)
        assert engine.restarted == [(5.0, "learner")]

    def test_the_hosts_of_a_learner_miss_the_same_once(self):
        engine = Stub(
            "learner-0", "learner-1", "replay-icons", when_stopped=[Ended("replay-icons")], per_hour=3
        )
        engine.events.put_at(5.0, Ended("learner-0", LACKING))
        engine.events.put_at(5.5, Ended("learner-1", LACKING))
        engine.events.put_at(9.0, Ended("learner-0"))
        engine.events.put_at(9.0, Ended("learner-1"))
        outcome = engine.run()
        assert outcome.status == "completed"
        assert outcome.restarts == {"learner-0": 1, "learner-1": 1, "replay-icons": 1}

    def test_a_wait_of_more_than_an_hour_does_not_make_it_the_first_time_again(self):
        engine = self.stub(per_hour=9, crash_grace=0.0, lack_seconds=7200.0)
        engine.events.put_at(3900.0, Ended("learner", LACKING))
        engine.events.put_at(7800.0, Ended("learner", LACKING))
        outcome = engine.run()
        assert (outcome.status, outcome.failed_task) == ("failed", "learner")

    def test_but_not_an_hour_later(self):
        engine = self.stub(per_hour=9)
        engine.events.put_at(5.0, Ended("learner", LACKING))
        engine.events.put_at(3700.0, Ended("learner", LACKING))
        engine.events.put_at(3800.0, Ended("learner"))
        assert engine.run().restarts["learner"] == 2

    def test_where_nothing_is_started_again_the_run_fails_at_once(self):
        engine = self.stub(per_hour=0)
        outcome = engine.run(Ended("learner", LACKING))
        assert (outcome.status, outcome.message) == ("failed", LACKING.message)
        # Asked with all others, because the run ends.
        assert engine.asked == [(0.0, sorted(set(self.NAMES) - {"learner"}), 8.0)]


class TestPhases:
    """Awaited tasks are asked to stop first."""

    def interrupted(self, engine):
        with engine.supervisor.interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
            return engine.supervisor.run()

    def test_the_others_when_those_have_ended(self):
        engine = Stub("learner-0", "learner-1", "replay", "evaluator", stop_notice=10.0)
        for time, name in [(1.0, "learner-0"), (3.0, "learner-1"), (3.5, "replay"), (4.0, "evaluator")]:
            engine.events.put_at(time, Ended(name))
        outcome = self.interrupted(engine)
        assert (outcome.status, outcome.stuck, engine.done) == ("interrupted", (), ["stop", "stop"])
        assert engine.asked == [(0.0, ["learner-0", "learner-1"], 10.0), (3.0, ["evaluator", "replay"], 7.0)]

    def test_or_after_half_the_notice(self):
        engine = Stub("learner", "replay", when_killed=[Ended("learner", OUCH)], stop_notice=10.0)
        engine.events.put_at(6.0, Ended("replay"))
        assert self.interrupted(engine).status == "interrupted"
        assert engine.asked == [(0.0, ["learner"], 10.0), (5.0, ["replay"], 5.0)]
        # All within one notice.
        assert (engine.done, engine.events.now) == (["stop", "stop", "kill"], 10.0)

    def test_a_run_that_fails_saves_its_state_too(self):
        engine = Stub("learner", "replay", "evaluator", stop_notice=10.0, crash_grace=2.0)
        engine.events.put_at(3.0, Ended("learner"))
        engine.events.put_at(4.0, Ended("replay"))
        outcome = engine.run(Ended("evaluator", OUCH))
        assert (outcome.status, outcome.failed_task) == ("failed", "evaluator")
        assert engine.asked == [(2.0, ["learner"], 10.0), (3.0, ["replay"], 9.0)]

    def test_all_at_once_where_the_awaited_have_ended(self):
        engine = Stub("learner", "replay", "evaluator", when_stopped=[Ended("replay"), Ended("evaluator")])
        engine.run(Ended("learner"))
        assert engine.asked == [(0.0, ["evaluator", "replay"], 8.0)]

    def test_a_second_signal_does_not_wait_for_the_others_turn(self):
        engine = Stub("learner", "replay", when_killed=[Ended("learner"), Ended("replay")])
        with engine.supervisor.interrupts():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            engine.supervisor.run()
        assert (engine.done, engine.events.now) == (["stop", "kill"], 0.0)


class TestSignalsOnHosts:
    """A task on another host is asked to stop there, and the engine hears of it."""

    def test_it_interrupts_the_run_while_the_task_still_runs(self):
        engine = Stub("learner", "replay", stop_notice=10.0)
        engine.events.put_at(1.0, Asked("replay", signal.SIGTERM))
        engine.events.put_at(1.1, Asked("learner", signal.SIGTERM))
        engine.events.put_at(2.0, Ended("learner", signal=signal.SIGTERM))
        engine.events.put_at(3.0, Ended("replay", signal=signal.SIGTERM))
        outcome = engine.supervisor.run()
        assert (outcome.status, outcome.signal) == ("interrupted", signal.SIGTERM)
        assert "SIGTERM to task replay" in outcome.message
        assert engine.asked == [(1.0, ["learner"], 10.0), (2.0, ["replay"], 9.0)]

    def test_the_launchers_own_signal_is_not_the_second_one(self):
        engine = Stub("learner", when_killed=[Ended("learner")])
        engine.events.put(Asked("learner", signal.SIGTERM))
        with engine.supervisor.interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
            engine.events.put_at(5.0, Ended("learner"))
            engine.supervisor.run()
        assert engine.done == ["stop"]

    def test_but_the_one_after_it_is(self):
        engine = Stub("learner", when_killed=[Ended("learner")])
        engine.events.put(Asked("learner", signal.SIGTERM))
        with engine.supervisor.interrupts():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            engine.supervisor.run()
        assert engine.done == ["stop", "kill"]


@pytest.mark.parametrize("until", [[], ["learner", "trainer"]])
def test_unknown_awaited_labels_are_refused(until):
    with pytest.raises(LaunchError, match=r"until = .*learner, replay/icons"):
        Terms(until).awaited({"learner": "learner", "replay-icons": "replay/icons"})
