"""Runs real processes; most are plain puppets, which start faster than Launchpad nodes."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import cloudpickle
import puppets
import pytest

from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.tasks import endpoints, make_tasks
from classact.launch.engines.local import guard
from classact.launch.engines.local.processes import run_processes
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.ports import LoopbackPorts, PortTakenError
from classact.launch.engines.resources import Resources
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.task import FATAL_STATUS, Task
from classact.launch.engines.terms import Patience, Terms

cloudpickle.register_pickle_by_value(puppets)
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def stage():
    stage = puppets.Stage()
    yield stage
    stage.close()


@contextlib.contextmanager
def launcher(workdir, stage, *notice):
    """A launcher of puppets in a process of its own."""
    command = [sys.executable, puppets.__file__, "launch", str(workdir), str(stage.port), *notice]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def plain_tasks(workdir, stage, *names):
    """Puppets that are no Launchpad nodes; a name's part before "-" is its label."""
    return [
        Task(
            name=name,
            label=name.split("-")[0],
            index=0,
            host="127.0.0.1",
            command=(sys.executable, puppets.__file__, "act", str(stage.port), name),
            env={},
            addresses=(),
            data_file=workdir / "tasks" / f"{name}.pkl",
            log_path=workdir / "logs" / f"{name}.log",
        )
        for name in names
    ]


def perform(stage, scene, tasks, **options):
    """Runs tasks while `scene` directs them; returns the outcome."""
    script = puppets.Script(stage, scene)
    try:
        return run_processes(tasks, Terms(["learner"], **options))
    finally:
        script.finish()


def test_nodes_reach_each_other_in_their_own_environments(tmp_path, stage):
    program = lp.Program("calls")
    doubler = program.add_node(lp.CourierNode(puppets.Doubler), label="inference/icons")
    program.add_node(lp.PyNode(puppets.act, stage.port, "learner", doubler), label="learner")
    resources = {"learner": Resources(threads=3, env={"WHO": "learner"}), "": Resources(env={"WHO": "other"})}
    said = []
    measured = threading.Semaphore(0)

    def scene():
        (learner,) = stage.await_puppets("learner")
        said.append([learner.ask(f"env {name}") for name in ("WHO", "NPROC")])
        said.append(learner.ask("call 21"))
        # Sizes are sampled before each tick; the second one from here began after the answer.
        while measured.acquire(blocking=False):
            pass
        said.append([measured.acquire(timeout=30), measured.acquire(timeout=30)])
        learner.tell("return")

    started = []
    with LoopbackPorts() as ports:
        tasks = make_tasks(program, workdir=tmp_path, ports=ports, resources=resources)
        found = endpoints(program)
        outcome = perform(
            stage, scene, tasks, on_start=lambda: started.append(True), on_tick=measured.release
        )

    assert said == [["learner", "3"], "42", [True, True]]
    assert started == [True]
    assert (outcome.status, outcome.exit_status, outcome.message) == ("completed", 0, "")
    assert found == {"inference/icons": [tasks[0].addresses[0]]}
    assert outcome.tasks["learner"].exit_status == 0
    assert outcome.cpu_seconds == sum(end.cpu_seconds for end in outcome.tasks.values()) > 0.2
    assert outcome.tasks["learner"].peak_bytes > 20e6
    assert outcome.peak_bytes > outcome.tasks["learner"].peak_bytes
    assert "Binding: double" in (tmp_path / "logs" / "inference-icons.log").read_text()
    assert not (tmp_path / "tasks").exists()


def test_a_crash_ends_the_run_with_its_traceback(tmp_path, stage):
    program = lp.Program("crash")
    program.add_node(lp.PyNode(puppets.act, stage.port, "learner"), label="learner")
    program.add_node(lp.PyNode(puppets.act, stage.port, "replay-icons"), label="replay/icons")

    def scene():
        learner, replay = stage.await_puppets("learner", "replay-icons")
        learner.tell("wait")
        replay.tell("crash ouch")
        learner.wait_until_gone(10)

    with LoopbackPorts() as ports:
        tasks = make_tasks(program, workdir=tmp_path, ports=ports)
        outcome = perform(stage, scene, tasks, patience=Patience(crash_grace=0))

    assert (outcome.status, outcome.exit_status, outcome.failed_task) == ("failed", 1, "replay-icons")
    assert str(tmp_path / "logs" / "replay-icons.log") in outcome.message
    assert outcome.traceback.startswith("Traceback (most recent call last)")
    assert outcome.traceback.endswith("ToldToCrash: ouch")
    assert "a line before the crash" in (tmp_path / "logs" / "replay-icons.log").read_text()
    # The stop reached the other node as Launchpad's stop event.
    assert "saw the stop event" in (tmp_path / "logs" / "learner.log").read_text()
    assert outcome.tasks["learner"].exit_status == 0
    assert outcome.killed == ()


def test_a_killed_server_is_started_again_on_its_address(tmp_path, stage, capsys):
    program = lp.Program("restart")
    doubler = program.add_node(lp.CourierNode(puppets.Doubler), label="inference/icons")
    program.add_node(lp.PyNode(puppets.act, stage.port, "learner", doubler), label="learner")
    servers = []

    def scene():
        (learner,) = stage.await_puppets("learner")
        servers.append(int(learner.ask("server")))
        os.kill(servers[0], signal.SIGKILL)
        # The call waits until its server is there again.
        assert learner.ask("call 21") == "42"
        servers.append(int(learner.ask("server")))
        learner.tell("return")

    with LoopbackPorts() as ports:
        tasks = make_tasks(program, workdir=tmp_path, ports=ports)
        outcome = perform(stage, scene, tasks, restarts=Restarts(2))

    assert (outcome.status, outcome.message) == ("completed", "")
    assert outcome.restarts == {"inference-icons": 1}
    assert servers[0] != servers[1]
    # One log for both lives.
    log = tmp_path / "logs" / "inference-icons.log"
    assert log.read_text().count("Binding: double") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("classact: task inference-icons crashed: killed by signal 9 (SIGKILL")
    assert str(log) in said and said.endswith("; started again (1 of 2 within the hour)")


def hanging(workdir, stage, scene, hung_seconds=3.0, **terms):
    """Runs puppets that are watched while `scene` directs them; returns the outcome."""
    with LoopbackPorts() as ports:
        job = puppets.job_of(puppets.program(stage.port), workdir)
        tasks = [dataclasses.replace(task, hung_seconds=hung_seconds) for task in job.make_tasks(ports=ports)]
        return perform(stage, scene, tasks, **terms)


@pytest.mark.parametrize("name", puppets.LAUNCHED)
def test_a_node_that_is_stopped_is_killed_and_started_again(tmp_path, stage, capsys, name):
    def scene():
        found = dict(zip(puppets.LAUNCHED, stage.await_puppets(*puppets.LAUNCHED), strict=True))
        os.kill(found[name].pid, signal.SIGSTOP)
        (found[name],) = stage.await_puppets(name)
        found["learner"].tell("return")

    outcome = hanging(tmp_path, stage, scene, restarts=Restarts(1))

    assert (outcome.status, outcome.restarts) == ("completed", {name: 1})
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(
        rf"classact: task {name} was silent for \d+ s; it last said, .*, and was killed; log:", said
    )
    assert said.endswith("; started again (1 of 1 within the hour)")


def test_what_should_have_delivered_is_started_again_with_the_learner(tmp_path, stage, capsys):
    def scene():
        learner, run_loop = stage.await_puppets(*puppets.LAUNCHED)
        run_loop.ask("deaf")
        learner.tell("lack icons")
        learner, run_loop = stage.await_puppets(*puppets.LAUNCHED)
        run_loop.tell("wait")
        learner.tell("lack icons")

    options = {"restarts": Restarts(5), "patience": Patience(stop_notice=0.5, crash_grace=0)}
    outcome = hanging(tmp_path, stage, scene, hung_seconds=0, **options)

    # A second time within the hour: it was tried.
    assert (outcome.status, outcome.failed_task) == ("failed", "learner")
    assert outcome.restarts == {"learner": 1, "run_loop-icons": 1}
    assert "task learner crashed: the replay of icons delivered no batch for 3 s; log:" in outcome.message
    assert outcome.traceback.endswith("NoDataError: the replay of icons delivered no batch for 3 s")
    assert "run_loop-icons deliver nothing, and are started again" in capsys.readouterr().err


def test_a_learner_in_an_endless_loop_is_killed_with_the_place_where_it_was(tmp_path, stage):
    def scene():
        learner, run_loop = stage.await_puppets(*puppets.LAUNCHED)
        learner.tell("loop")
        run_loop.wait_until_gone(20)

    outcome = hanging(tmp_path, stage, scene, patience=Patience(crash_grace=0))

    assert (outcome.status, outcome.failed_task) == ("failed", "learner")
    assert re.match(
        r"task learner did not get on for \d+ s; it last said, learner: working, 0 done, the last \d+ s ago, "
        r"in .*, line \d+ \(_loop\), and was killed; log: ",
        outcome.message,
    )
    # Python's fault handler has printed where every thread is.
    assert "Fatal Python error: Aborted" in outcome.traceback
    assert re.search(r"\", line \d+ in _loop", outcome.traceback)


def test_a_node_that_dies_too_often_ends_the_run(tmp_path, stage):
    pids = []

    def scene():
        learner, replay = stage.await_puppets("learner", "replay")
        for life in range(3):
            pids.append(replay.pid)
            replay.tell("exit 3")
            if life < 2:
                (replay,) = stage.await_puppets("replay")
        learner.wait_until_gone(10)

    tasks = plain_tasks(tmp_path, stage, "learner", "replay")
    outcome = perform(stage, scene, tasks, restarts=Restarts(2), patience=Patience(crash_grace=0))

    assert len(set(pids)) == 3
    assert (outcome.status, outcome.failed_task) == ("failed", "replay")
    assert outcome.restarts == {"replay": 2}
    assert "exit status 3" in outcome.message
    assert outcome.message.endswith("; it had been started again 2 times within the hour")
    assert outcome.tasks["replay"].exit_status == 3


def test_the_awaited_task_may_succeed_in_another_life(tmp_path, stage):
    def scene():
        learner, replay = stage.await_puppets("learner", "replay")
        os.kill(learner.pid, signal.SIGKILL)
        (learner,) = stage.await_puppets("learner")
        assert replay.ask("env NOTHING") == "not set"
        learner.tell("return")

    tasks = plain_tasks(tmp_path, stage, "learner", "replay")
    outcome = perform(stage, scene, tasks, restarts=Restarts(1))

    assert (outcome.status, outcome.restarts) == ("completed", {"learner": 1})
    assert outcome.tasks["learner"].exit_status == 0


def test_an_error_that_no_restart_cures_ends_the_run_at_once(tmp_path, stage):
    program = lp.Program("fatal")
    program.add_node(lp.PyNode(puppets.act, stage.port, "learner"), label="learner")

    def scene():
        (learner,) = stage.await_puppets("learner")
        learner.tell("fatal ouch")
        learner.wait_until_gone(20)

    with LoopbackPorts() as ports:
        tasks = make_tasks(program, workdir=tmp_path, ports=ports)
        outcome = perform(stage, scene, tasks, restarts=Restarts(5))

    assert (outcome.status, outcome.failed_task, outcome.restarts) == ("failed", "learner", {})
    assert outcome.tasks["learner"].exit_status == FATAL_STATUS
    assert "an error that no restart cures" in outcome.message
    # As Python prints an uncaught exception, from the outermost frame on.
    assert "_run_module_as_main" in outcome.traceback.splitlines()[1]
    assert outcome.traceback.endswith("DataError: ouch")


def test_a_work_directory_that_is_gone_ends_the_run_at_once(tmp_path, stage):
    workdir = tmp_path / "run"

    def scene():
        (learner,) = stage.await_puppets("learner")
        workdir.rename(tmp_path / "elsewhere")
        learner.tell("exit 3")

    outcome = perform(stage, scene, plain_tasks(workdir, stage, "learner"), restarts=Restarts(5))

    assert (outcome.status, outcome.failed_task, outcome.restarts) == ("failed", "learner", {})
    assert f"the run's files cannot be written: {workdir / 'logs'} is gone" in outcome.message
    assert not workdir.exists()


def test_an_address_that_was_taken_meanwhile_is_another_death(tmp_path, stage):
    learner, replay = plain_tasks(tmp_path, stage, "learner", "replay")
    with LoopbackPorts() as ports:
        address = f"127.0.0.1:{ports()}"
        replay = Task(**{**vars(replay), "addresses": (address,)})

        def scene():
            puppet, server = stage.await_puppets("learner", "replay")
            with socket.create_server(("127.0.0.1", int(address.split(":")[1]))):
                server.tell("exit 3")
                puppet.wait_until_gone(10)

        options = {"restarts": Restarts(1), "patience": Patience(crash_grace=0)}
        outcome = perform(stage, scene, [learner, replay], **options)

    assert (outcome.status, outcome.failed_task, outcome.restarts) == ("failed", "replay", {"replay": 1})
    assert f"something already listens on {address}" in outcome.message


def test_a_node_may_end_the_whole_run(tmp_path, stage):
    program = lp.Program("stop")
    program.add_node(lp.PyNode(puppets.act, stage.port, "evaluator"), label="evaluator")

    def scene():
        evaluator, learner = stage.await_puppets("evaluator", "learner")
        evaluator.tell("stop")
        learner.wait_until_gone(10)

    with LoopbackPorts() as ports:
        tasks = make_tasks(program, workdir=tmp_path, ports=ports)
        tasks += plain_tasks(tmp_path, stage, "learner")
        outcome = perform(stage, scene, tasks)

    assert outcome.status == "completed"
    assert outcome.tasks["learner"].exit_status == -signal.SIGTERM


def test_a_killed_node_ends_the_run(tmp_path, stage):
    def scene():
        learner, replay = stage.await_puppets("learner", "replay")
        os.kill(replay.pid, signal.SIGKILL)
        learner.wait_until_gone(5)

    tasks = plain_tasks(tmp_path, stage, "learner", "replay")
    outcome = perform(stage, scene, tasks, patience=Patience(crash_grace=0))

    assert (outcome.status, outcome.failed_task) == ("failed", "replay")
    assert "SIGKILL" in outcome.message
    assert outcome.tasks["replay"].exit_status == -signal.SIGKILL
    assert outcome.killed == ()


def test_the_run_ends_after_the_last_awaited_task(tmp_path, stage):
    ticks = []

    def scene():
        first, second, evaluator, replay = stage.await_puppets(
            "learner-0", "learner-1", "evaluator", "replay"
        )
        evaluator.tell("return")  # No success of an awaited task, and no failure either.
        evaluator.wait_until_gone(5)
        first.tell("return")
        first.wait_until_gone(5)
        assert replay.ask("env NOTHING") == "not set"  # The others go on.
        second.tell("return")
        replay.wait_until_gone(5)

    tasks = plain_tasks(tmp_path, stage, "learner-0", "learner-1", "evaluator", "replay")
    outcome = perform(stage, scene, tasks, on_tick=lambda: ticks.append(1))

    assert outcome.status == "completed"
    assert {name: end.exit_status for name, end in outcome.tasks.items()} == {
        "learner-0": 0,
        "learner-1": 0,
        "evaluator": 0,
        "replay": -signal.SIGTERM,
    }
    assert ticks


def test_failing_while_the_learner_leaves_is_no_failure(tmp_path, stage):
    def scene():
        learner, evaluator = stage.await_puppets("learner", "evaluator")
        evaluator.tell("exit 3")
        evaluator.wait_until_gone(5)
        learner.tell("return")

    tasks = plain_tasks(tmp_path, stage, "learner", "evaluator")
    outcome = perform(stage, scene, tasks, patience=Patience(crash_grace=30))

    assert (outcome.status, outcome.exit_status) == ("completed", 0)
    assert "evaluator crashed: exit status 3" in outcome.message
    assert outcome.tasks["evaluator"].exit_status == 3


def test_what_does_not_stop_is_killed_after_the_notice(tmp_path, stage):
    def scene():
        learner, replay = stage.await_puppets("learner", "replay")
        replay.ask("deaf")
        learner.tell("return")
        replay.wait_until_gone(10)

    tasks = plain_tasks(tmp_path, stage, "learner", "replay")
    outcome = perform(stage, scene, tasks, patience=Patience(stop_notice=0.2))

    assert outcome.status == "completed"
    assert outcome.killed == ("replay",)


def test_a_nodes_children_do_not_outlive_it(tmp_path, stage):
    def scene():
        (learner,) = stage.await_puppets("learner")
        learner.ask(f"spawn {stage.port} grandchild")
        (grandchild,) = stage.await_puppets("grandchild")
        grandchild.ask("deaf")
        learner.tell("return")
        grandchild.wait_until_gone(10)

    outcome = perform(stage, scene, plain_tasks(tmp_path, stage, "learner"))

    assert outcome.status == "completed"


def test_sigterm_stops_all_nodes(tmp_path, stage):
    with launcher(tmp_path, stage) as process:
        nodes = stage.await_puppets(*puppets.LAUNCHED)
        for node in nodes:
            # Ctrl-C in the terminal reaches its foreground group: not the nodes.
            assert os.getsid(node.pid) == node.pid
            node.tell("wait")
        process.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait_until_gone(10)
        said, _ = process.communicate(timeout=10)

    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads(said) == {"status": "interrupted", "message": "stopped by SIGTERM", "killed": []}
    for name in puppets.LAUNCHED:
        assert "saw the stop event" in (tmp_path / "logs" / f"{name}.log").read_text()
    assert not (tmp_path / "tasks").exists()


def test_the_learner_is_asked_to_stop_before_the_others(tmp_path, stage):
    with launcher(tmp_path, stage, "60") as process:
        learner, run_loop = stage.await_puppets(*puppets.LAUNCHED)
        learner.tell("last_words")
        process.send_signal(signal.SIGTERM)
        assert learner.hear() == "asked to stop"
        # It can still save its state with the help of the others.
        assert run_loop.ask("stopped") == "False"
        learner.tell("return")
        learner.wait_until_gone(10)
        run_loop.tell("wait")
        run_loop.wait_until_gone(10)
        said, _ = process.communicate(timeout=10)

    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads(said)["killed"] == []
    assert "saw the stop event" in (tmp_path / "logs" / "run_loop-icons.log").read_text()


def test_a_second_ctrl_c_kills_at_once(tmp_path, stage):
    with launcher(tmp_path, stage, "60") as process:
        nodes = stage.await_puppets(*puppets.LAUNCHED)
        nodes[0].tell("wait")
        nodes[1].ask("deaf")
        process.send_signal(signal.SIGINT)
        nodes[0].wait_until_gone(10)
        assert nodes[1].ask("env NOTHING") == "not set"
        process.send_signal(signal.SIGINT)
        nodes[1].wait_until_gone(5)
        said, _ = process.communicate(timeout=10)

    assert process.returncode == 128 + signal.SIGINT
    assert json.loads(said)["status"] == "interrupted"
    assert "run_loop-icons" in json.loads(said)["killed"]


def test_a_killed_launcher_leaves_no_node(tmp_path, stage):
    with launcher(tmp_path, stage) as process:
        nodes = stage.await_puppets(*puppets.LAUNCHED)
        nodes[1].ask("deaf")
        process.kill()
        for node in nodes:
            node.wait_until_gone(5)


def test_the_guard_starts_nothing_for_a_dead_launcher(tmp_path):
    mark = tmp_path / "ran"
    command = [sys.executable, "-I", "-S", guard.__file__, "1", "touch", str(mark)]
    if os.getpid() == 1:
        command[4] = "2"

    ended = subprocess.run(command, capture_output=True, text=True)

    assert ended.returncode == 1
    assert "launcher is gone" in ended.stderr
    assert not mark.exists()


def test_signal_handlers_are_put_back(tmp_path, stage):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    perform(
        stage,
        lambda: stage.await_puppets("learner")[0].tell("return"),
        plain_tasks(tmp_path, stage, "learner"),
    )

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_launcher_told_to_ignore_its_children_still_sees_them_end(tmp_path, stage):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        outcome = perform(
            stage,
            lambda: stage.await_puppets("learner")[0].tell("exit 3"),
            plain_tasks(tmp_path, stage, "learner"),
        )
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert outcome.tasks["learner"].exit_status == 3


def test_an_error_in_the_launcher_leaves_no_task(tmp_path, stage):
    entered = threading.Event()

    def scene():
        (learner,) = stage.await_puppets("learner")
        learner.ask("deaf")
        entered.set()
        learner.wait_until_gone(5)

    def fail():
        assert entered.wait(10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        perform(stage, scene, plain_tasks(tmp_path, stage, "learner"), on_start=fail)


def test_a_taken_port_stops_the_run_before_its_start(tmp_path, stage):
    (task,) = plain_tasks(tmp_path, stage, "learner")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        taken = Task(**{**vars(task), "addresses": (address,)})
        with pytest.raises(PortTakenError, match=f"learner.*{address}"):
            run_processes([taken], Terms(["learner"]))

    assert not task.log_path.exists()


@pytest.mark.parametrize("until", [[], ["learner", "trainer"]])
def test_unknown_awaited_labels_are_refused(tmp_path, stage, until):
    with pytest.raises(LaunchError, match=r"until = .*learner, replay"):
        run_processes(plain_tasks(tmp_path, stage, "learner", "replay"), Terms(until))
    assert not (tmp_path / "logs").exists()
