"""Whole programs, nodes of which hang: they are killed, started again, and the run reaches its end."""

import os
import re
import signal

import psutil
import pytest
from program_runs import lines_of, nodes_of, processes_of, result_of, start, wait_until

from classact.nodes import checkpoints

NODES = {"replay-digits", "learner", "inference-digits", "run_loop-digits", "evaluator-test"}
HUNG = 10


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


def server_of(pid):
    """The replay's server, a child of the node that serves it."""
    (server,) = (
        child for child in psutil.Process(pid).children() if "server_program" in " ".join(child.cmdline())
    )
    return server.pid


def test_every_node_is_stopped_and_the_run_completes(place):
    """All at once, as a debugger or a virtual machine would; then the replay's server alone."""
    output = place / "stopped.out"
    process = start(
        place,
        "stopped",
        "--launch=processes",
        "--config.policy=hard_learner",
        "--config.inference.run_loops_as_nodes=True",
        "--config.steps=600",
        "--config.checkpoint_every=50",
        f"--config.hung_seconds={HUNG}",
    )
    directory = place / "stopped" / "checkpoints"
    wait_until(lambda: (checkpoints.latest_step(directory) or 0) >= 50, process, output)
    stopped = nodes_of(place / "stopped")
    assert set(stopped) == NODES
    for pid in stopped.values():
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: set(nodes_of(place / "stopped")) == NODES, process, output)
    wait_until(lambda: not set(nodes_of(place / "stopped").values()) & set(stopped.values()), process, output)
    before = checkpoints.latest_step(directory)
    wait_until(lambda: checkpoints.latest_step(directory) > before, process, output)
    os.kill(server_of(nodes_of(place / "stopped")["replay-digits"]), signal.SIGSTOP)

    assert process.wait(240) == 0, output.read_text()
    result = result_of(place, "stopped")
    assert (result["status"], result["steps"]) == ("completed", 600)
    assert result["restarts"] == {**dict.fromkeys(NODES, 1), "replay-digits": 2}
    said = output.read_text()
    for name in NODES:
        assert re.search(
            rf"classact: task {name} was silent for 1\d s; it last said, .*, and was killed", said
        )
    assert re.search(r"task replay-digits did not get on for 1\d s; it last said, tables: working", said)
    assert lines_of(place, "stopped", "learner")[-1]["step"] == 600
    assert processes_of(place / "stopped") == []
