"""Runs a task as an engine on another host would: from a file, in a process that gets signals."""

import contextlib
import queue
import signal
import socket
import subprocess
import sys
import threading

from classact.launch import on_host
from classact.launch.outcome import TaskEnd
from classact.launch.task import STOP_STATUS, Task

WAIT_FOR_SIGTERM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
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
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
signal.pause()
"""
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)


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
def running(folder, code):
    task_of(folder, code).save(folder / "task.json")
    command = [sys.executable, "-m", "classact.launch.on_host", folder / "task.json", folder / "end.json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
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
    finished = on_host.run_task(task_of(tmp_path, "import os; print(os.environ['WHO'])"), queue.SimpleQueue())
    assert finished.ended == on_host.Ended("learner")
    assert finished.end.exit_status == 0 and finished.end.cpu_seconds > 0 and finished.end.peak_bytes > 0
    assert (tmp_path / "logs" / "learner.log").read_text() == "learner\n"

    finished.save(tmp_path / "end.json")
    assert on_host.Finished.load(tmp_path / "end.json") == finished


def test_lp_stop_reaches_the_engine(tmp_path):
    finished = on_host.run_task(task_of(tmp_path, f"raise SystemExit({STOP_STATUS})"), queue.SimpleQueue())
    assert finished.ended.stops_run and finished.ended.crash is None


def test_a_crash_comes_with_its_traceback(tmp_path):
    with running(tmp_path, "raise KeyError('lost')") as process:
        assert process.wait(30) == 0
    finished = on_host.Finished.load(tmp_path / "end.json")
    assert "task learner crashed: exit status 1" in finished.ended.crash.message
    assert finished.ended.crash.traceback.endswith("KeyError: 'lost'")
    assert finished.end.exit_status == 1


def test_a_signal_asks_the_task_to_stop(tmp_path):
    with running(tmp_path, WAIT_FOR_SIGTERM) as process:
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


def test_a_second_signal_ends_it(tmp_path):
    with running(tmp_path, DEAF) as process:
        await_ready(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        # The first one is at work once the signal has been passed on, in any order.
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    end = on_host.Finished.load(tmp_path / "end.json").end
    assert end == TaskEnd(-signal.SIGKILL, end.cpu_seconds, end.peak_bytes, killed=True)


def test_a_task_that_does_not_stop_is_ended_after_the_notice(tmp_path):
    events = queue.SimpleQueue()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(on_host.run_task(task_of(tmp_path, DEAF), events, stop_notice=0.5))
    )
    thread.start()
    log = tmp_path / "logs" / "learner.log"
    while not (log.exists() and "ready" in log.read_text()):
        thread.join(0.1)
    events.put("stop")
    thread.join(30)
    assert found[0].end.killed and "SIGKILL" in found[0].ended.crash.message
    # Looked at while it was deaf, so certainly as the whole interpreter that it is.
    assert found[0].end.peak_bytes > 1e6


def test_a_task_can_be_ended_at_once(tmp_path):
    events = queue.SimpleQueue()
    events.put("stop")
    events.put(on_host.KILL)
    finished = on_host.run_task(task_of(tmp_path, DEAF), events)
    assert finished.end.killed and finished.end.exit_status in (-signal.SIGKILL, -signal.SIGTERM)
    assert finished.ended.signal is None


def test_a_port_that_is_taken_here_is_a_crash_before_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        finished = on_host.run_task(task_of(tmp_path, "pass", (address,)), queue.SimpleQueue())
    assert address in finished.ended.crash.message and finished.end is None
    assert not (tmp_path / "logs" / "learner.log").exists()
    finished.save(tmp_path / "end.json")
    assert on_host.Finished.load(tmp_path / "end.json") == finished
