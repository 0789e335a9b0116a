"""Whole programs on bad days: no space, a file system that hangs, a clock that jumps."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program_runs import processes_of, result_of, start, train, wait_until

from classact.nodes import checkpoints

RECORDED = (
    "--config.policy=uniform",
    "--config.steps=120",
    "--config.checkpoint_every=20",
    "--config.record_examples=True",
)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.fixture
def disk(place):
    """A work directory on a small file system of its own."""
    folder = place / "full"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


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


def test_a_run_without_space_ends_at_once_and_goes_on_when_there_is_some(place, disk):
    process = start(place, "full", *RECORDED)
    output = place / "full.out"
    wait_until(lambda: (checkpoints.latest_step(disk / "checkpoints") or 0) >= 20, process, output)
    ballast = fill(disk)
    assert process.wait(60) == 1, output.read_text()
    said = output.read_text()
    assert "the run's files cannot be written: No space left on device" in said
    assert "started again" not in said
    newest = checkpoints.latest_step(disk / "checkpoints")
    assert f"its newest checkpoint is of step {newest}; the same command goes on" in said
    assert not processes_of(disk)

    fill(disk)  # What the run has removed at its end.
    other = train(place, "full/other", *RECORDED)
    assert other.returncode == 2, other.stderr
    assert "No space left on device" in other.stderr and "Traceback" not in other.stderr

    ballast.unlink()
    done = train(place, "full", *RECORDED)
    assert done.returncode == 0, done.stderr
    assert f"goes on from step {newest}" in done.stderr
    assert result_of(place, "full")["status"] == "completed"
    assert steps_of(disk) == list(range(1, 121))
