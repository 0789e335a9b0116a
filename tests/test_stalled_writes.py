"""A whole program, a file of which takes nothing for a while, as one on a network disk that hangs."""

import array
import contextlib
import fcntl
import json
import os
import signal
import termios
import time

import pytest
from program_runs import processes_of, result_of, start, train, wait_until

from classact.nodes import checkpoints

PIPE_BYTES = 4096
NOTICE = 3.0
# An update takes a hundredth, and a checkpoint a tenth.
QUIET_SECONDS = 3.0
FIELDS = (
    "--config.policy=uniform",
    "--config.steps=160",
    "--config.checkpoint_every=20",
    "--config.record_examples=True",
    f"--config.stop_notice_seconds={NOTICE}",
)


class Pipe:
    """Stands in the place of a file; who writes to it waits once it is full."""

    def __init__(self, path):
        os.mkfifo(path)
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._read = b""
        self._held, self._since = 0, time.monotonic()

    def hangs(self):
        """Whether somebody waits to write: it is nearly full, and has been for longer than updates take."""
        held = array.array("i", [0])
        fcntl.ioctl(self._file, termios.FIONREAD, held)
        now = time.monotonic()
        if held[0] != self._held:
            self._held, self._since = held[0], now
        return self._held > PIPE_BYTES // 2 and now - self._since > QUIET_SECONDS

    def drain(self):
        """Takes what is in it; returns the step of the newest line so far."""
        with contextlib.suppress(BlockingIOError):
            self._read += os.read(self._file, 2**20)
        lines = self._read.splitlines()
        return json.loads(lines[-1])["step"] if lines else 0

    def becomes_a_file(self):
        """Puts a file with what was written in its place."""
        self.drain()
        os.close(self._file)
        self._path.unlink()
        self._path.write_bytes(self._read)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_a_learner_whose_write_hangs_waits_for_it_and_a_stop_does_not(place):
    workdir, output = place / "stalled", place / "stalled.out"
    workdir.mkdir()
    pipe = Pipe(workdir / "trained_examples.jsonl")
    process = start(place, "stalled", *FIELDS)
    wait_until(pipe.hangs, process, output)
    # It comes back, twice: the learner goes on.
    wait_until(lambda: pipe.drain() >= 60, process, output)
    wait_until(pipe.hangs, process, output)
    assert not (workdir / "result.json").exists()

    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM, output.read_text()
    # The learner hears nothing of it: the end of the notice ends it, and the rest is quick.
    assert NOTICE - 0.1 <= time.monotonic() - asked < NOTICE + 15
    assert result_of(place, "stalled")["status"] == "interrupted"
    assert "started again" not in output.read_text()
    assert not processes_of(workdir)
    newest = checkpoints.latest_step(workdir / "checkpoints")
    assert newest >= 40

    pipe.becomes_a_file()
    done = train(place, "stalled", *FIELDS)
    assert done.returncode == 0, done.stderr
    assert f"goes on from step {newest}" in done.stderr
    lines = (workdir / "trained_examples.jsonl").read_text().splitlines()
    assert {json.loads(line)["step"] for line in lines} == set(range(1, 161))
