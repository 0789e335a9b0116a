import json
import os
import subprocess
import sys
import threading

import pytest

from classact.launch.engines import heartbeat
from classact.nodes import activity

# A node that loops, or waits, while its heartbeat goes on.
NODE = """
import sys, threading
from classact.launch.engines import heartbeat
from classact.nodes import activity
heartbeat.beat()
with activity.part("learner"):
    print("there", flush=True)
    {body}
"""


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def listener(monkeypatch):
    """A listener whose time passes when the test says so; the test is the node."""
    made = heartbeat.Listener(4.0, clock=Clock())
    # What is to be read is there.
    monkeypatch.setattr(heartbeat, "_await", lambda *_: None)
    yield made
    made.close()


def say(listener, stuck, doing):
    os.write(listener.pipe, (json.dumps([stuck, doing]) + "\n").encode())


def pass_time(listener, seconds):
    """Listens so long, in steps of a second, as the thread does."""
    for _ in range(seconds):
        listener._clock.now += 1.0
        found = listener.listen()
        if found:
            break
    return found


def test_a_node_that_falls_silent_hangs(listener):
    say(listener, 0.0, "learner: compiling")
    assert pass_time(listener, 1) == ""
    assert pass_time(listener, 3) == ""
    assert pass_time(listener, 3) == "was silent for 5 s; it last said, learner: compiling"


def test_a_node_that_does_not_get_on_hangs(listener):
    say(listener, 4.0, "learner: working")
    assert pass_time(listener, 1) == ""
    say(listener, 4.1, "learner: working")
    assert pass_time(listener, 1) == "did not get on for 4 s; it last said, learner: working"


def test_before_its_first_beat_a_node_may_take_longer(listener):
    assert pass_time(listener, 500) == ""
    assert pass_time(listener, 101).startswith("was silent for 601 s")


def test_what_the_listener_itself_was_away_does_not_count(listener):
    say(listener, 0.0, "")
    assert pass_time(listener, 1) == ""
    listener._clock.now += 3600.0
    assert listener.listen() == ""


def test_a_node_whose_whole_run_was_stopped_is_excused(monkeypatch):
    """As Slurm suspends a job, or a container is paused: the launcher is stopped too, and kills nobody."""
    times, excused = iter([0.0, 0.0, 1.0, 101.0]), []
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(heartbeat.activity, "report", lambda: activity.Report(0.0, ""))
    monkeypatch.setattr(heartbeat.activity, "excuse", excused.append)
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.0)
    read, write = os.pipe()
    with pytest.raises(StopIteration):
        heartbeat._send(write)
    os.close(read)
    os.close(write)
    assert excused == [-5.0, -4.0, 95.0]


def test_zero_never_ends_a_node():
    listener = heartbeat.Listener(0.0, clock=Clock())
    say(listener, 1e6, "learner: working")
    listener._clock.now += 1e6
    assert listener.listen() == ""
    assert listener.doing == "learner: working"
    listener.started()
    listener.close()


def test_it_hears_of_the_end(listener):
    say(listener, 0.0, "bye")
    listener.started()
    assert listener.listen() is None
    assert listener.doing == "bye"


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"\xff\xfe\n"])
def test_what_is_no_beat_is_passed_over(listener, line):
    os.write(listener.pipe, line)
    assert listener.listen() == ""


@pytest.mark.parametrize(
    ("body", "hangs"),
    [
        ("while True: pass", True),
        ("with activity.busy('building an index'): threading.Event().wait(60)", False),
    ],
)
def test_a_busy_main_thread_does_not_hold_up_the_heartbeat(body, hangs):
    listener = heartbeat.Listener(3.0)
    with subprocess.Popen(
        [sys.executable, "-c", NODE.format(body=body)],
        stdout=subprocess.PIPE,
        env={**os.environ, heartbeat.VARIABLE: str(listener.pipe)},
        pass_fds=[listener.pipe],
    ) as node:
        try:
            listener.started()
            assert node.stdout.readline() == b"there\n"
            said = []
            while len(said) < 12 and not any(said):
                said.append(listener.listen())
        finally:
            node.kill()
    listener.close()
    if hangs:
        assert said[-1].startswith("did not get on for ") and "(<module>)" in said[-1]
    else:
        assert set(said) == {""}
        assert "learner: building an index for" in listener.doing


def test_where_nobody_listens_there_is_no_heartbeat(monkeypatch):
    monkeypatch.delenv(heartbeat.VARIABLE, raising=False)
    heartbeat.beat()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
