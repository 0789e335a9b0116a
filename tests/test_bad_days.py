"""Whole programs on bad days: no space, a file system that hangs, a clock that jumps."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

import pytest
from program_runs import CLASSACT, environment, lines_of, processes_of, result_of, start, train, wait_until

from classact.nodes import checkpoints

RECORDED = (
    "--config.policy=uniform",
    "--config.steps=120",
    "--config.checkpoint_every=20",
    "--config.record_examples=True",
)
# So long that it runs when something is done to it.
LONG = (*RECORDED, "--config.steps=400")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


@contextlib.contextmanager
def mounted(folder, *arguments):
    """A file system of its own at a folder; skips the test where none can be had."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder.mkdir()
    command = ["mount", *map(str, arguments), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=60)


@pytest.fixture
def small_disk(place):
    """A work directory that is a disk of 64 MB."""
    with mounted(place / "full", "-t", "tmpfs", "-o", "size=64m", "tmpfs") as folder:
        yield folder


class HangingDisk:
    """A work directory whose file system can be made to hang: each write waits, and no signal ends that."""

    def __init__(self, folder):
        self.folder = folder

    @contextlib.contextmanager
    def hanging(self):
        self._fsfreeze("--freeze")
        try:
            yield
        finally:
            self._fsfreeze("--unfreeze")

    def _fsfreeze(self, how):
        subprocess.run(["fsfreeze", how, self.folder], check=True, timeout=60)


@pytest.fixture
def hanging_disk(place):
    image = place / "image"
    with image.open("wb") as file:
        file.truncate(256 * 2**20)
    if not shutil.which("mkfs.ext4") or not shutil.which("fsfreeze"):
        pytest.skip("there is no mkfs.ext4 or no fsfreeze")
    subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=60)
    with mounted(place / "hangs", "-o", "loop", image) as folder:
        yield HangingDisk(folder)


def fill(folder):
    """Takes the last byte; returns the file that has them."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(2**16))
    return ballast


def steps_of(workdir):
    """Steps of the updates, those that were undone left out."""
    steps = []
    for line in (workdir / "trained_examples.jsonl").read_text().splitlines():
        if line.endswith("}"):
            step = json.loads(line)["step"]
            steps = [earlier for earlier in steps if earlier < step] + [step]
    return steps


def test_a_run_without_space_ends_at_once_and_goes_on_when_there_is_some(place, small_disk):
    process = start(place, "full", *LONG)
    output = place / "full.out"
    wait_until(lambda: (checkpoints.latest_step(small_disk / "checkpoints") or 0) >= 20, process, output)
    ballast = fill(small_disk)
    assert process.wait(60) == 1, output.read_text()
    said = output.read_text()
    assert "the run's files cannot be written: No space left on device" in said
    assert "started again" not in said
    newest = checkpoints.latest_step(small_disk / "checkpoints")
    assert f"its newest checkpoint is of step {newest}; the same command goes on" in said
    assert not processes_of(small_disk)

    fill(small_disk)  # What the run has removed at its end.
    other = train(place, "full/other", *RECORDED)
    assert other.returncode == 2, other.stderr
    assert "No space left on device" in other.stderr and "Traceback" not in other.stderr

    ballast.unlink()
    done = train(place, "full", *LONG)
    assert done.returncode == 0, done.stderr
    assert f"goes on from step {newest}" in done.stderr
    assert result_of(place, "full")["status"] == "completed"
    assert steps_of(small_disk) == list(range(1, 401))


def test_a_run_waits_for_a_file_system_that_hangs(place, hanging_disk):
    process = start(place, "hangs", *RECORDED, "--config.log_every=1", "--config.steps=400")
    output = place / "hangs.out"
    directory = hanging_disk.folder / "checkpoints"
    wait_until(lambda: (checkpoints.latest_step(directory) or 0) >= 20, process, output)
    with hanging_disk.hanging(), pytest.raises(subprocess.TimeoutExpired):
        process.wait(4)
    before = len(steps_of(hanging_disk.folder))
    wait_until(lambda: len(steps_of(hanging_disk.folder)) > before, process, output)

    # Nothing that writes there can end meanwhile, the launcher included.
    with hanging_disk.hanging():
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
    assert process.wait(60) == 128 + signal.SIGTERM, output.read_text()
    assert result_of(place, "hangs")["status"] == "interrupted"
    assert "started again" not in output.read_text()
    assert not processes_of(hanging_disk.folder)
    newest = checkpoints.latest_step(directory)
    assert steps_of(hanging_disk.folder) == list(range(1, newest + 1))

    done = train(place, "hangs", *RECORDED, "--config.log_every=50", "--config.steps=400")
    assert done.returncode == 0, done.stderr
    assert steps_of(hanging_disk.folder) == list(range(1, 401))


# Two hours to and fro, every four seconds.
JUMPS = """
import time

wall = time.time
time.time = lambda: wall() + 7200 * (int(time.monotonic() / 4) % 2)
"""


def test_a_clock_that_jumps_makes_no_difference(place):
    (place / "sitecustomize.py").write_text(JUMPS)
    done = train(place, "jumps", *RECORDED, "--config.steps=400")
    assert done.returncode == 0, done.stderr
    stamps = [line["time"] for line in lines_of(place, "jumps", "learner")]
    assert max(stamps) - min(stamps) > 7000
    result = result_of(place, "jumps")
    assert (result["status"], result["steps"]) == ("completed", 400)
    assert 0 < result["wall_seconds"] < 240
    assert steps_of(place / "jumps") == list(range(1, 401))
    for command in (["status", f"--workdir={place / 'jumps'}"], ["compare", place / "jumps"]):
        shown = subprocess.run(
            [*CLASSACT, *command],
            env=environment(place),
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert shown.returncode == 0, shown.stderr
