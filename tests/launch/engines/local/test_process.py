"""What is measured of one task's process."""

import queue
import sys
import time

import pytest

from classact.launch.engines.local.process import LocalProcess
from classact.launch.engines.task import Task

# A node whose child, which it waits for, is large and works for a while.
_CHILD = "held = bytearray(b'x' * (96 << 20)); sum(range(4_000_000)); print(1, flush=True); input()"
_NODE = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {_CHILD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("grown", flush=True)
import signal
signal.sigwait([signal.SIGTERM])
child.communicate(b"end")
"""


@pytest.fixture
def task(tmp_path):
    block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
    command = (sys.executable, "-c", block + _NODE)
    log = tmp_path / "logs" / "replay.log"
    return Task("replay", "replay", 0, "here", command, {}, (), tmp_path / "none", log)


def test_the_memory_and_the_time_of_a_child_are_the_tasks(task):
    events = queue.SimpleQueue()
    process = LocalProcess(task, events)
    deadline = time.monotonic() + 60
    while "grown" not in task.log_path.read_text():
        assert time.monotonic() < deadline
    assert process.resident_bytes() > 96 << 20
    process.terminate()
    assert events.get(timeout=30).crash is None
    assert process.end.exit_status == 0
    assert process.end.peak_bytes > 96 << 20
    assert process.end.cpu_seconds > 0.05
