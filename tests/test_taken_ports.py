"""A whole program, the port of one of whose nodes is taken while it is away."""

import json
import os
import pathlib
import signal
import socket
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program_runs import processes_of, result_of, start, wait_until

from classact.nodes import checkpoints


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


def replay_of(workdir):
    """The process of the replay, by what it reads."""
    (found,) = (
        process.pid
        for process in processes_of(workdir)
        for argument in process.cmdline()
        if argument.startswith("--data_file=") and pathlib.Path(argument).stem == "replay-digits"
    )
    return found


def test_a_node_whose_port_is_taken_is_tried_again_until_it_is_free(place):
    output, workdir = place / "taken.out", place / "taken"
    process = start(
        place,
        "taken",
        "--config.policy=hard_learner",
        "--config.steps=300",
        "--config.checkpoint_every=50",
        "--config.record_examples=True",
    )
    wait_until(lambda: (checkpoints.latest_step(workdir / "checkpoints") or 0) >= 50, process, output)
    (address,) = json.loads((workdir / "endpoints.json").read_text())["replay/digits"]
    with socket.socket() as other:
        # So it can be had while the replay, whose server shares as well, still has it.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        other.listen()
        os.kill(replay_of(workdir), signal.SIGKILL)
        wait_until(lambda: "started again in 2 s" in output.read_text(), process, output)
    assert process.wait(240) == 0, output.read_text()
    said = output.read_text()
    why = f"cannot be started again: task replay-digits: something already listens on {address}"
    assert said.count(why) >= 2
    result = result_of(place, "taken")
    assert (result["status"], result["steps"]) == ("completed", 300)
    # Those that failed count.
    assert result["restarts"]["replay-digits"] == 1 + said.count(why)
    steps = {
        json.loads(line)["step"] for line in (workdir / "trained_examples.jsonl").read_text().splitlines()
    }
    assert steps == set(range(1, 301))
