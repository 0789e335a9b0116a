"""A run that was interrupted goes on, and one whose nodes die reaches its end."""

import collections
import json
import shutil
import signal

import psutil
import pytest
from program_runs import lines_of, processes_of, result_of, start, train, wait_until

from classact.nodes import checkpoints

EXAMPLES = 1438  # Of digits, to train on.
LONG = (
    "--config.policy=uniform",
    "--config.steps=120",
    "--config.checkpoint_every=20",
    "--config.record_examples=True",
    # What was read ahead is then made anew by who goes on.
    "--config.replay.images=ids",
    "--config.augment=crop",
)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


def wait_for_checkpoint(place, name, process, step):
    def there():
        return (checkpoints.latest_step(place / name / "checkpoints") or 0) >= step

    wait_until(there, process, place / f"{name}.out")


def kill_all(process):
    """A machine that loses its power."""
    launcher = psutil.Process(process.pid)
    for child in (launcher, *launcher.children(recursive=True)):
        child.kill()
    process.wait(20)


def trained_on(place, name):
    """Ids by update, those that were undone left out."""
    found = {}
    for line in (place / name / "trained_examples.jsonl").read_text().splitlines():
        record = json.loads(line)
        found = {step: ids for step, ids in found.items() if step < record["step"]}
        found[record["step"]] = record["digits"]
    return found


def test_a_run_goes_on_where_its_last_checkpoint_is(place):
    """Killed, stopped, damaged, with other numbers of servers: the schedule and the epoch go on."""
    name = "interrupted"
    process = start(place, name, *LONG)
    wait_for_checkpoint(place, name, process, 20)
    kill_all(process)
    first = checkpoints.latest_step(place / name / "checkpoints")
    assert not (place / name / "result.json").exists()

    others = ("servers=2", "run_loops_as_nodes=True", "request_size=20")
    process = start(place, name, *LONG, *(f"--config.inference.{field}" for field in others))
    wait_for_checkpoint(place, name, process, first + 20)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert f"goes on from step {first}" in (place / f"{name}.out").read_text()
    stopped = result_of(place, name)
    assert stopped["status"] == "interrupted"
    newest = checkpoints.latest_step(place / name / "checkpoints")
    # What it had done since its last regular checkpoint is not lost.
    assert newest == max(trained_on(place, name))

    for path in (place / name / "checkpoints" / str(newest)).rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    before = checkpoints.latest_step(place / name / "checkpoints")
    assert before == newest
    done = train(place, name, *LONG)
    assert done.returncode == 0, done.stderr
    assert f"{newest} is damaged" in done.stderr and "taking the one before it" in done.stderr
    result = result_of(place, name)
    assert result["status"] == "completed" and result["steps"] == 120
    assert result["wall_seconds"] > stopped["wall_seconds"]
    made = len((place / name / "trained_examples.jsonl").read_text().splitlines())
    # The kill may have come between the two.
    assert made - 120 <= result["counts"]["updates_redone"] <= made - 120 + 1
    spent = result["ledger"]
    each = 32 * spent["learner_update_macs"]
    assert spent["redone_macs"] == result["counts"]["updates_redone"] * each > 0
    assert spent["total_macs"] == 120 * each
    # Of both sessions that have left a result.
    assert sum(result["cpu_seconds_by_kind"].values()) == pytest.approx(result["cpu_seconds"])
    assert all(
        seconds > stopped["cpu_seconds_by_kind"].get(kind, 0.0)
        for kind, seconds in result["cpu_seconds_by_kind"].items()
    )
    assert (place / name / "checkpoints" / f"damaged-{newest}").is_dir()
    assert not (place / name / "replay").exists()
    assert processes_of(place / name) == []

    updates = trained_on(place, name)
    assert list(updates) == list(range(1, 121))
    steps = [line["step"] for line in lines_of(place, name, "learner")]
    assert set(steps) == set(range(10, 121, 10))
    # 120 updates of 32 are two epochs and two thirds: nothing of the first two was left out.
    counts = collections.Counter(number for ids in updates.values() for number in ids)
    assert len(counts) == EXAMPLES and min(counts.values()) >= 2
    # Each of the three times it began again: two batches of the table and two of each run loop.
    most = sorted(counts.values())[-1]
    assert most <= 3 + 3
    repeated = sum(max(0, count - 3) for count in counts.values())
    assert repeated <= 3 * (2 * 32 + 2 * 2 * 32)

    again = train(place, name, *LONG)
    assert again.returncode == 0 and "had reached its last step" in again.stderr
    other = train(place, name, *LONG, "--config.learning_rate=0.5")
    assert other.returncode == 2
    assert "learning_rate=0.5" in other.stderr and "holds a run with 0.001" in other.stderr


def test_two_launchers_never_share_a_work_directory(place):
    process = start(place, "one", *LONG, "--config.steps=100000")
    wait_until((place / "one" / "endpoints.json").exists, process, place / "one.out")
    second = train(place, "one", *LONG, "--config.steps=100000")
    assert second.returncode == 2
    assert "a launcher is running it" in second.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM


def test_if_all_checkpoints_are_damaged_nothing_starts(place):
    name = "damaged"
    done = train(place, name, *LONG, "--config.steps=20", "--launch=threads")
    assert done.returncode == 0, done.stderr
    (place / name / "result.json").unlink()
    for path in (place / name / "checkpoints" / "20").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
            path.mkdir()
    done = train(place, name, *LONG, "--config.steps=20")
    assert done.returncode == 2
    assert "are damaged (20)" in done.stderr
