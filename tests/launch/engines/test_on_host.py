"""Runs a task as an engine on another host would: from a file, in a process that gets signals."""

import contextlib
import queue
import signal
import socket
import subprocess
import sys
import threading

import pytest

from classact.launch.engines import on_host
from classact.launch.engines.slurm import steps as slurm_steps
from classact.launch.engines.task import DIVERGED_STATUS, FATAL_STATUS, STOP_STATUS, UNWRITABLE_STATUS, Task

WAIT_FOR_STOP = """
import signal, sys
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(0))
print("ready", flush=True)
signal.pause()
"""
SLOW_TO_STOP = """
import signal, sys, time
def stop(*_):
    print("asked", flush=True)
    time.sleep(1)
    print("done", flush=True)
    sys.exit(0)
signal.signal(signal.SIGUSR2, stop)
print("ready", flush=True)
signal.pause()
"""
# A task that Slurm has signalled as well as its host.
HOLDS_ON = """
import os, signal, threading
from classact.launch.engines.entry import Entry
stop = threading.Event()
def on_sigterm(*_):
    print("asked", flush=True)
    stop.set()
def run():
    os.kill(os.getpid(), signal.SIGTERM)
    print("ready", flush=True)
    while not stop.wait(0.05):
        pass
signal.signal(signal.SIGTERM, on_sigterm)
Entry(run)()
"""
DEAF = """
import signal
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""


def task_of(folder, code, addresses=()):
    return Task(
        name="learner",
        label="learner",
        index=0,
        host="here",
        command=(sys.executable, "-c", code),
        env={"WHO": "learner"},
        addresses=addresses,
        data_file=folder / "tasks" / "learner.pkl",
        log_path=folder / "logs" / "learner.log",
    )


@contextlib.contextmanager
def running(folder, code, notice=60, hold=0):
    task_of(folder, code).save(folder / "task.json")
    command = [
        sys.executable,
        "-m",
        "classact.launch.engines.on_host",
        folder / "task.json",
        folder / "end.json",
    ]
    command += [str(notice), str(hold)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def await_ready(folder, process):
    await_line(folder, process, "ready")


def await_line(folder, process, line):
    log = folder / "logs" / "learner.log"
    while not (log.exists() and line in log.read_text()):
        assert process.poll() is None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)


def test_a_task_survives_being_saved(tmp_path):
    task = task_of(tmp_path, "pass", ("a:1", "b:2"))
    task.save(tmp_path / "task.json")
    assert Task.load(tmp_path / "task.json") == task


def test_a_tasks_end_is_told_with_what_it_used(tmp_path):
    task = task_of(tmp_path, "import os; print(os.environ['WHO'])")
    finished = on_host.run_task(task, queue.SimpleQueue(), 60)
    assert finished.ended == on_host.Ended("learner")
    assert finished.end.exit_status == 0 and finished.end.cpu_seconds > 0 and finished.end.peak_bytes > 0
    assert (tmp_path / "logs" / "learner.log").read_text() == "learner\n"

    finished.save(tmp_path / "end.json")
    assert on_host.Finished.load(tmp_path / "end.json") == finished


def test_lp_stop_reaches_the_engine(tmp_path):
    task = task_of(tmp_path, f"raise SystemExit({STOP_STATUS})")
    finished = on_host.run_task(task, queue.SimpleQueue(), 60)
    assert finished.ended.stops_run and finished.ended.crash is None


def test_that_no_restart_cures_it_reaches_the_engine(tmp_path):
    task = task_of(tmp_path, f"raise SystemExit({FATAL_STATUS})")
    on_host.run_task(task, queue.SimpleQueue(), 60).save(tmp_path / "end.json")
    assert on_host.Finished.load(tmp_path / "end.json").ended.crash.fatal


def test_that_the_run_has_diverged_reaches_the_engine(tmp_path):
    said = (
        "sys.stderr.write('classact.nodes.errors.DivergedError: diverged at step 17: train/loss is nan\\n')"
    )
    task = task_of(tmp_path, f"import sys; {said}; raise SystemExit({DIVERGED_STATUS})")
    on_host.run_task(task, queue.SimpleQueue(), 60).save(tmp_path / "end.json")
    crash = on_host.Finished.load(tmp_path / "end.json").ended.crash
    assert (crash.fatal, crash.diverged) == (True, 17)
    assert "task learner crashed: diverged at step 17: train/loss is nan; log: " in crash.message


def test_a_crash_comes_with_its_traceback(tmp_path):
    with running(tmp_path, "raise KeyError('lost')") as process:
        assert process.wait(30) == 0
    finished = on_host.Finished.load(tmp_path / "end.json")
    assert "task learner crashed: exit status 1" in finished.ended.crash.message
    assert finished.ended.crash.traceback.endswith("KeyError: 'lost'")
    assert finished.end.exit_status == 1


def test_a_signal_asks_the_task_to_stop(tmp_path):
    with running(tmp_path, WAIT_FOR_STOP) as process:
        await_ready(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finished = on_host.Finished.load(tmp_path / "end.json")
    # The engine is told that it was not its own doing.
    assert finished.ended == on_host.Ended("learner", signal=signal.SIGTERM)
    assert finished.end.exit_status == 0


def test_the_end_of_input_asks_the_task_to_stop_and_no_signal_after_it_ends_it(tmp_path):
    with running(tmp_path, SLOW_TO_STOP) as process:
        await_ready(tmp_path, process)
        process.stdin.close()
        await_line(tmp_path, process, "asked")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finished = on_host.Finished.load(tmp_path / "end.json")
    assert finished.ended.crash is None and finished.end.exit_status == 0
    assert (tmp_path / "logs" / "learner.log").read_text().splitlines()[-1] == "done"


def test_a_signal_is_told_at_once_and_passed_on_when_the_engine_says_so(tmp_path):
    with running(tmp_path, HOLDS_ON, hold=30) as process:
        await_ready(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        assert on_host.TOLD.search(process.stdout.readline())[1] == str(int(signal.SIGTERM))
        # Others are asked first.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert "asked" not in (tmp_path / "logs" / "learner.log").read_text()
        process.stdin.write("20.5")
        process.stdin.close()
        assert process.wait(20) == 0
    finished = on_host.Finished.load(tmp_path / "end.json")
    assert finished.ended == on_host.Ended("learner", signal=signal.SIGTERM)
    assert finished.end.exit_status == 0 and not finished.end.killed


@pytest.mark.parametrize(
    "asks", [lambda process: process.send_signal(signal.SIGTERM), lambda process: process.stdin.close()]
)
def test_without_a_word_of_the_engine_it_is_passed_on_by_and_by(tmp_path, asks):
    with running(tmp_path, HOLDS_ON, hold=0.6) as process:
        await_ready(tmp_path, process)
        asks(process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert "asked" not in (tmp_path / "logs" / "learner.log").read_text()
        assert process.wait(20) == 0
    assert on_host.Finished.load(tmp_path / "end.json").end.exit_status == 0


def test_the_engine_says_how_long_the_notice_is(tmp_path):
    with running(tmp_path, DEAF) as process:
        await_ready(tmp_path, process)
        process.stdin.write("0.2")
        process.stdin.close()
        assert process.wait(20) == 0
    assert on_host.Finished.load(tmp_path / "end.json").end.killed


def test_the_notice_begins_with_the_signal(tmp_path):
    with running(tmp_path, DEAF, notice=0.4, hold=0.2) as process:
        await_ready(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        assert on_host.TOLD.search(process.stdout.readline())
        process.stdin.write("60")
        process.stdin.close()
        assert process.wait(20) == 0
    assert on_host.Finished.load(tmp_path / "end.json").end.killed


def test_a_second_signal_changes_nothing(tmp_path):
    with running(tmp_path, SLOW_TO_STOP) as process:
        await_ready(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        await_line(tmp_path, process, "asked")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finished = on_host.Finished.load(tmp_path / "end.json")
    assert finished.ended == on_host.Ended("learner", signal=signal.SIGTERM)
    assert (tmp_path / "logs" / "learner.log").read_text().splitlines()[1:] == ["asked", "done"]


def end_of_deaf_task(folder, *told):
    """Tells it once it ignores what asks it to stop: before, that would end it."""
    events = queue.SimpleQueue()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(on_host.run_task(task_of(folder, DEAF), events, notice=60))
    )
    thread.start()
    log = folder / "logs" / "learner.log"
    while not (log.exists() and "ready" in log.read_text()):
        thread.join(0.1)
    for event in told:
        events.put(event)
    thread.join(30)
    return found[0]


def test_a_task_that_does_not_stop_is_ended_after_the_notice(tmp_path):
    finished = end_of_deaf_task(tmp_path, on_host.Stop(0.5))
    assert finished.end.killed and "SIGKILL" in finished.ended.crash.message
    # Looked at while it was deaf, so certainly as the whole interpreter that it is.
    assert finished.end.peak_bytes > 1e6


def test_a_task_can_be_ended_at_once(tmp_path):
    finished = end_of_deaf_task(tmp_path, on_host.Stop(60), on_host.KILL)
    assert finished.end.killed and finished.end.exit_status == -signal.SIGKILL
    assert finished.ended.signal is None


def test_a_port_that_is_taken_here_is_a_crash_before_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        finished = on_host.run_task(task_of(tmp_path, "pass", (address,)), queue.SimpleQueue(), 60)
    assert address in finished.ended.crash.message and finished.end is None
    assert not (tmp_path / "logs" / "learner.log").exists()
    finished.save(tmp_path / "end.json")
    assert on_host.Finished.load(tmp_path / "end.json") == finished


def test_an_end_that_cannot_be_written_has_a_status_of_its_own(tmp_path):
    (tmp_path / "end.tmp").symlink_to("/dev/full")
    with running(tmp_path, "pass") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == UNWRITABLE_STATUS
    assert said == f"{tmp_path / 'end.json'} cannot be written: [Errno 28] No space left on device\n"


def test_a_step_whose_end_cannot_be_written_is_not_started_again(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "learner.0.end.tmp").symlink_to("/dev/full")
    events = queue.SimpleQueue()
    # `env` runs here what `srun` runs there.
    step = slurm_steps._Step(task_of(tmp_path, "pass"), 0, ["env"], (60.0, 0.0))
    step.watch(events, lambda: ["here"])
    ended = events.get(timeout=60)
    step.close()
    assert ended.crash.fatal and step.end is None
    assert "the run's files cannot be written: " in ended.crash.message
    assert "No space left on device" in ended.crash.message
