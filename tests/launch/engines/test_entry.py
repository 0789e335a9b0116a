"""What a task's process does with an error; that Launchpad lets it is for test_processes.py."""

import atexit
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading

import pytest

from classact import user_code
from classact.data.source import DataError
from classact.experiments.config import ConfigError
from classact.launch.engines.crash_report import crash_text
from classact.launch.engines.entry import Entry
from classact.launch.engines.task import (
    DIVERGED_STATUS,
    FATAL_STATUS,
    NO_DATA_STATUS,
    STOP_SIGNAL_VARIABLE,
    STOP_STATUS,
    TASK_VARIABLE,
    UNWRITABLE_STATUS,
)
from classact.nodes import errors

# As a task's process: Launchpad's frame is the outermost one, and something waits at exit.
SCRIPT = """
import atexit, threading
from classact.data.source import DataError
from classact.launch.engines.entry import Entry

def fail():
    try:
        raise KeyError("cause")
    except KeyError as error:
        raise DataError("ouch") from error

atexit.register(threading.Event().wait)
print("hello", flush=True)
Entry(fail)()
"""

SOON = 10.0


class LeftError(BaseException):
    """Stands for the end of the process, with a status."""


@pytest.fixture
def in_task(monkeypatch):
    """Makes this process seem to be a task's."""

    def leave(status):
        raise LeftError(status)

    monkeypatch.setenv(TASK_VARIABLE, "task")
    monkeypatch.setattr(os, "_exit", leave)
    # What an entry registers for the exit would end this process.
    monkeypatch.setattr(atexit, "register", lambda *call: None)


def test_what_a_node_returns_is_returned():
    assert Entry(lambda: 7)() == 7


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(Entry(int)))() == 0


@pytest.fixture
def handlers():
    """Puts back who handles the signals that an entry takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_another_signal_stops_it_where_sigterm_must_not(monkeypatch, handlers):
    heard = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda number, frame: heard.put(number))
    monkeypatch.setenv(STOP_SIGNAL_VARIABLE, "SIGUSR2")
    Entry(lambda: os.kill(os.getpid(), signal.SIGTERM))()
    with pytest.raises(queue.Empty):
        heard.get(timeout=0.2)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert heard.get(timeout=SOON) == signal.SIGTERM


def test_a_stop_waits_for_a_lock_that_the_main_thread_holds(handlers):
    # As that of Launchpad's stop event, while a node begins to wait for it.
    lock, heard = threading.Lock(), queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda number, frame: heard.put(lock.acquire(timeout=SOON)))

    def node():
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)

    Entry(node)()
    assert heard.get(timeout=2 * SOON)


# The kernel may give a process's signal to a thread that the main one does not wait for.
ELSEWHERE = """
import os, signal, sys, threading
from classact.launch.engines.entry import Entry

stop, waiting = threading.Event(), threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())

def take():
    waiting.wait()
    while not main_thread_sleeps():
        pass
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)

def main_thread_sleeps():
    return open(f"/proc/self/task/{os.getpid()}/stat").read().rsplit(")", 1)[1].split()[0] == "S"

def node():
    threading.Thread(target=take, daemon=True).start()
    waiting.set()
    stop.wait()

Entry(node)()
"""


def test_a_stop_that_another_thread_gets_wakes_the_main_thread():
    environment = {**os.environ, STOP_SIGNAL_VARIABLE: "SIGUSR2"}
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], env=environment, timeout=SOON, check=False)
    assert done.returncode == 0


# A source may fork, and end what it has forked.
FORKED = """
import os, signal, sys, threading, time
from classact.launch.engines.entry import Entry

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())

def node():
    there, here = os.pipe()
    child = os.fork()
    if not child:
        os.write(here, b"!")
        time.sleep(60)
        os._exit(1)
    os.read(there, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert not stop.wait(0.3)

Entry(node)()
"""


def test_a_signal_to_a_forked_child_ends_that_alone():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=SOON, check=False
    )
    assert done.returncode == 0, done.stderr


def test_that_nothing_was_delivered_has_a_status_of_its_own(capsys, in_task):
    def fail():
        raise errors.NoDataError("icons", "delivered no batch for 3 s")

    with pytest.raises(LeftError) as ended:
        Entry(fail)()
    assert ended.value.args == (NO_DATA_STATUS,)
    found = errors.NoDataError.in_text(capsys.readouterr().err)
    assert (found.data_set, found.why) == ("icons", "delivered no batch for 3 s")


@pytest.mark.parametrize(
    "kind",
    [
        errors.FatalError,
        DataError,
        ConfigError,
    ],
)
def test_an_error_that_no_restart_cures_has_a_status_of_its_own(kind, capsys, in_task):
    def fail():
        raise kind("ouch")

    with pytest.raises(LeftError) as ended:
        Entry(fail)()
    assert ended.value.args == (FATAL_STATUS,)
    assert capsys.readouterr().err.rstrip().endswith(f"{kind.__name__}: ouch")


def test_a_run_that_has_diverged_has_a_status_of_its_own_too(capsys, in_task):
    def fail():
        raise errors.DivergedError(17, "train/loss is nan")

    with pytest.raises(LeftError) as ended:
        Entry(fail)()
    assert ended.value.args == (DIVERGED_STATUS,)
    found = errors.DivergedError.in_text(capsys.readouterr().err)
    assert (found.step, found.why) == (17, "train/loss is nan")


@pytest.mark.parametrize(
    ("error", "status"),
    [("KeyError('x')", FATAL_STATUS), ("RuntimeError('x')", FATAL_STATUS), ("ConnectionError('x')", 1)],
)
def test_an_error_in_a_user_s_code_is_tried_again_only_if_it_is_the_machine_s(
    users_place, capsys, in_task, error, status
):
    (users_place / "own_node.py").write_text(f"def fail():\n    raise {error}\n")
    fail = user_code.find("policy", "own_node:fail")

    def serve():
        # As an inference server hands on what its thread met.
        try:
            fail()
        except Exception as error:
            raise RuntimeError("the inference server failed") from error

    with pytest.raises(LeftError) as ended:
        Entry(serve)()
    assert ended.value.args == (status,)
    blame = "an error in your own code: "
    assert (blame in capsys.readouterr().err) == (status == FATAL_STATUS)


@pytest.mark.parametrize("error", [RuntimeError("ouch"), ValueError("ouch"), SystemExit(3)])
def test_other_errors_pass(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as ended:
        Entry(fail)()
    assert ended.value is error


# As Orbax's, which wait for the other parts of a checkpoint that has failed.
WAITING = """
import threading
from classact.launch.engines.entry import Entry

def fail():
    threading.Thread(target=threading.Event().wait).start()
    raise {error}

Entry(fail)()
"""


@pytest.mark.parametrize(
    ("error", "status"), [("OSError(28, 'full')", UNWRITABLE_STATUS), ("KeyError('ouch')", 1)]
)
def test_a_task_that_fails_waits_for_no_thread(error, status):
    done = subprocess.run(
        [sys.executable, "-c", WAITING.format(error=error)],
        env={**os.environ, TASK_VARIABLE: "task"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert "in fail\n" in done.stderr


def test_the_traceback_is_found_in_the_log_and_nothing_waits_at_exit(tmp_path):
    script, log = tmp_path / "node.py", tmp_path / "task.log"
    script.write_text(SCRIPT)
    with log.open("w") as out:
        environment = {**os.environ, TASK_VARIABLE: "task"}
        done = subprocess.run(
            [sys.executable, "-m", "node"],
            cwd=tmp_path,
            env=environment,
            stdout=out,
            stderr=out,
            timeout=60,
            check=False,
        )
    assert done.returncode == FATAL_STATUS
    text = crash_text(log)
    # Its cause first, as Python prints it.
    assert text.startswith("Traceback (most recent call last):")
    assert "KeyError: 'cause'\n\nThe above exception was the direct cause" in text
    _, _, last = text.partition("the following exception:\n\n")
    assert last.splitlines()[1].endswith("in _run_module_as_main")
    assert f'  File "{script}", line ' in last
    assert last.endswith("DataError: ouch")


UNWRITABLE = """
from classact.launch.engines.entry import Entry

def fail():
    with open("/dev/full", "w") as full:
        full.write("a line")

Entry(fail)()
"""


def test_a_task_without_space_tells_so_even_if_its_log_has_none_either():
    environment = {**os.environ, TASK_VARIABLE: "task"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", UNWRITABLE],
            env=environment,
            stdout=full,
            stderr=full,
            timeout=60,
            check=False,
        )
    assert done.returncode == UNWRITABLE_STATUS


# A signal that comes when Python has given it its default action back.
LATE = """
import os, signal
from classact.launch.engines.entry import Entry

class Late:
    def __init__(self, kill):
        self.kill = kill

    def __del__(self):
        print("still there", flush=True)
        self.kill()

signal.signal(signal.SIGTERM, lambda number, frame: None)
late = Late(lambda kill=os.kill, pid=os.getpid(): kill(pid, 15))
Entry(lambda: None)()
"""


@pytest.mark.parametrize("stop_signal", ["", "SIGUSR2"])
def test_a_signal_that_comes_at_the_very_end_changes_nothing(stop_signal):
    environment = {**os.environ, STOP_SIGNAL_VARIABLE: stop_signal}
    if not stop_signal:
        del environment[STOP_SIGNAL_VARIABLE]
    done = subprocess.run(
        [sys.executable, "-c", LATE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "still there\n"), done.stderr


# As a thread of C++ that comes back to an interpreter that takes itself apart.
ABORTED = """
import atexit, os, sys
from classact.launch.engines.entry import Entry

class Late:
    def __init__(self, abort):
        self.abort = abort

    def __del__(self):
        self.abort()

def node():
    atexit.register(print, "what a node registers is done")
    {end}

late = Late(os.abort)
print("begun")
Entry(node)()
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("return", 0),
        ("sys.exit()", 0),
        (f"sys.exit({STOP_STATUS})", STOP_STATUS),
        ("from classact.nodes.errors import FatalError; raise FatalError('ouch')", FATAL_STATUS),
    ],
)
def test_nothing_aborts_a_task_that_has_ended(end, status):
    done = subprocess.run(
        [sys.executable, "-c", ABORTED.format(end=end)],
        env={**os.environ, TASK_VARIABLE: "learner"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    # A fatal error waits for nothing.
    said = ["begun"] if status == FATAL_STATUS else ["begun", "what a node registers is done"]
    assert done.stdout.splitlines() == said


def test_an_error_in_a_task_is_pythons_to_report():
    done = subprocess.run(
        [sys.executable, "-c", "from classact.launch.engines.entry import Entry; Entry(lambda: 1 / 0)()"],
        env={**os.environ, TASK_VARIABLE: "learner"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
