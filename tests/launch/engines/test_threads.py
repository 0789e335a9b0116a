import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from classact.calls import exposed
from classact.launch.assembly.in_threads import make_threads
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.replay_node import ReplayNode
from classact.launch.assembly.tasks import endpoints, task_names
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.ports import LoopbackPorts
from classact.launch.engines.sockets import PrivateSockets
from classact.launch.engines.terms import Patience, Terms
from classact.launch.engines.threads import run_threads
from classact.nodes import errors
from classact.replay import server_calls
from classact.replay.config import TableConfig

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM)
NO_GRACE = Patience(crash_grace=0)


class Adder:
    @exposed
    def add(self, number):
        return number + 1


class Waiter:
    """A node that waits for the stop event and says so."""

    def __init__(self, said):
        self._said = said

    def run(self):
        lp.wait_for_stop()
        self._said.append("stopped")


def program_of(**functions):
    """A program of Python nodes by label."""
    program = lp.Program("threads")
    for label, function in functions.items():
        program.add_node(lp.PyNode(function), label=label)
    return program


def run(program, until=("learner",), **terms):
    """Runs a program's nodes as threads."""
    labels = {name: label for (label, _), name in task_names(program).items()}
    with LoopbackPorts() as ports, PrivateSockets() as sockets:
        return run_threads(make_threads(program, ports, sockets), labels, Terms(until, **terms))


def until_event(event):
    """A node that does not hear the stop event."""
    return lambda: event.wait()


def test_nodes_reach_each_other():
    said = []
    program = lp.Program("calls")
    adder = program.add_node(lp.CourierNode(Adder), label="inference/icons")
    program.add_node(lp.PyNode(lambda client: said.append(client.add(41)), adder), label="learner")
    program.add_node(lp.PyNode(Waiter(said).run), label="evaluator/test")
    started = []

    outcome = run(program, on_start=lambda: started.append(endpoints(program)))

    assert sorted(map(str, said)) == ["42", "stopped"]
    assert (outcome.status, outcome.exit_status, outcome.stuck) == ("completed", 0, ())
    assert outcome.cpu_seconds > 0
    ((label, (address,)),) = started[0].items()
    assert label == "inference/icons"
    assert address.startswith("unix:")
    assert not Path(address.removeprefix("unix:")).parent.exists()


def test_replay_serves_other_nodes(tmp_path):
    seen = []

    def learner(address):
        calls = server_calls.ServerCalls(address)
        deadline = time.monotonic() + 30
        while not seen:
            with contextlib.suppress(server_calls.ReplayError):
                seen.append(sorted(calls.tables()))
            assert time.monotonic() < deadline

    program = lp.Program("replay")
    tables = TableConfig(batch_size=4, samples_per_insert=0.5, capacity=64, super_batch=8)
    replay = program.add_node(ReplayNode(tables, 100, tmp_path), label="replay/icons")
    program.add_node(lp.PyNode(learner, replay), label="learner")

    outcome = run(program)

    assert outcome.status == "completed", outcome.traceback
    assert seen == [["examples", "stream"]]


def test_a_crash_ends_the_run_with_its_traceback(capsys):
    said = []

    def crash():
        raise ValueError("ouch")

    program = program_of(learner=Waiter(said).run, replay=crash)
    outcome = run(program, patience=NO_GRACE)

    assert (outcome.status, outcome.exit_status, outcome.failed_task) == ("failed", 1, "replay")
    assert outcome.message == "task replay crashed: ValueError: ouch"
    assert outcome.traceback.startswith("Traceback (most recent call last)")
    assert "in crash" in outcome.traceback
    assert said == ["stopped"]
    assert "Traceback" not in capsys.readouterr().err  # The caller prints it, once.


def test_that_the_run_has_diverged_is_told_by_its_outcome():
    def diverge():
        raise errors.DivergedError(17, "train/loss is nan")

    outcome = run(program_of(learner=diverge), patience=NO_GRACE)

    assert (outcome.status, outcome.exit_status, outcome.diverged) == ("failed", 1, 17)
    assert outcome.message == "task learner crashed: diverged at step 17: train/loss is nan"


def test_what_the_awaited_nodes_need_is_there_until_they_have_ended():
    """A learner that is stopped saves the tables first."""
    order = []

    def learner():
        os.kill(os.getpid(), signal.SIGINT)
        lp.wait_for_stop()
        order.append(("learner", replay_stopped.wait(0.3)))

    replay_stopped = threading.Event()

    def replay():
        lp.stop_event().wait()
        replay_stopped.set()
        order.append(("replay", True))

    outcome = run(program_of(learner=learner, replay=replay))

    assert (outcome.status, outcome.stuck) == ("interrupted", ())
    assert order == [("learner", False), ("replay", True)]


@pytest.mark.parametrize(("status", "result"), [(None, "completed"), (0, "completed"), (3, "failed")])
def test_a_node_may_leave_by_sys_exit(status, result):
    outcome = run(program_of(learner=lambda: sys.exit(status)))

    assert outcome.status == result


def test_a_node_may_end_the_whole_run():
    said = []
    outcome = run(program_of(learner=Waiter(said).run, evaluator=lp.stop))

    assert outcome.status == "completed"
    assert said == ["stopped"]


def test_the_run_ends_after_the_last_awaited_node():
    first, ticked = threading.Event(), threading.Event()
    program = lp.Program("two")
    with program.group("learner"):
        program.add_node(lp.PyNode(first.set))
        program.add_node(lp.PyNode(lambda: first.wait() and ticked.wait()))

    outcome = run(program, on_tick=lambda: first.is_set() and ticked.set())

    assert outcome.status == "completed"
    assert ticked.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_nodes(number):
    said = []
    program = program_of(learner=Waiter(said).run)

    outcome = run(program, on_start=lambda: os.kill(os.getpid(), number))

    assert (outcome.status, outcome.exit_status) == ("interrupted", 128 + number)
    assert said == ["stopped"]
    assert outcome.stuck == ()


def test_a_stuck_node_is_named_after_the_notice():
    release = threading.Event()
    program = program_of(learner=lambda: None, replay=until_event(release))

    outcome = run(program, patience=Patience(stop_notice=0.2))
    release.set()

    assert (outcome.status, outcome.stuck) == ("completed", ("replay",))


def test_a_second_signal_ends_the_wait():
    release = threading.Event()
    program = program_of(learner=until_event(release))

    def interrupt():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    outcome = run(program, patience=Patience(stop_notice=1000), on_start=interrupt)
    release.set()

    assert (outcome.status, outcome.stuck) == ("interrupted", ("learner",))


def test_signal_handlers_and_the_environment_are_put_back(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    handlers = [signal.getsignal(number) for number in STOPPING]
    seen = []

    run(program_of(learner=lambda: seen.append(os.environ["no_proxy"])))

    assert [signal.getsignal(number) for number in STOPPING] == handlers
    assert seen[0].startswith("example.org,localhost,127.0.0.1")
    assert os.environ["no_proxy"] == "example.org"
    assert "NO_PROXY" not in os.environ


def test_an_error_in_the_launcher_stops_the_nodes():
    stopped = threading.Event()

    def learner():
        lp.wait_for_stop()
        stopped.set()

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(program_of(learner=learner), on_start=fail)

    assert stopped.wait(5)


@pytest.mark.parametrize("until", [[], ["trainer"]])
def test_unknown_awaited_labels_are_refused(until):
    with pytest.raises(LaunchError, match=r"until = .*learner"):
        run(program_of(learner=lambda: None), until=until)


def test_only_the_main_thread_may_launch():
    errors = []

    def launch():
        try:
            run(program_of(learner=lambda: None))
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()

    assert "main thread" in errors[0]


def test_the_interpreter_exits_in_spite_of_a_stuck_node(tmp_path):
    script = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_threads
program = test_threads.program_of(learner=lambda: None, replay=threading.Event().wait)
outcome = test_threads.run(program, patience=test_threads.Patience(0.1))
print(outcome.stuck)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert ended.stdout.strip() == "('replay',)"
    assert ended.returncode == 0, ended.stderr
