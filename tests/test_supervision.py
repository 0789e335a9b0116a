"""A whole program, all of whose nodes die, is started again node by node and reaches its end."""

import os
import signal

import pytest
from program_runs import lines_of, nodes_of, processes_of, result_of, start, wait_until

from classact.nodes import checkpoints

NODES = {"replay-digits", "learner", "inference-digits", "evaluator-test"}


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_every_node_is_killed_at_once_and_the_run_completes(place):
    output = place / "mortal.out"
    process = start(
        place,
        "mortal",
        "--launch=processes",
        "--config.policy=hard_learner",
        "--config.steps=800",
        "--config.checkpoint_every=50",
    )
    directory = place / "mortal" / "checkpoints"
    wait_until(lambda: (checkpoints.latest_step(directory) or 0) >= 50, process, output)
    killed = nodes_of(place / "mortal")
    assert set(killed) == NODES
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(nodes_of(place / "mortal")) == NODES, process, output)
    assert not set(nodes_of(place / "mortal").values()) & set(killed.values())

    assert process.wait(240) == 0, output.read_text()
    result = result_of(place, "mortal")
    assert (result["status"], result["steps"]) == ("completed", 800)
    assert result["restarts"] == dict.fromkeys(NODES, 1)
    said = output.read_text()
    for name in NODES:
        assert f"classact: task {name} crashed: killed by signal 9" in said
    assert said.count("; started again (1 of 10 within the hour)") == len(NODES)
    # It went on from a checkpoint, with both lives' metrics in one file.
    steps = [line["step"] for line in lines_of(place, "mortal", "learner")]
    assert steps[-1] == 800 and steps.count(10) == 1
    assert lines_of(place, "mortal", "evaluator-test")[-1]["step"] == 800
    assert not processes_of(place / "mortal")
