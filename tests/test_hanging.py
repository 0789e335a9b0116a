"""Whole programs, nodes of which hang: they are killed, started again, and the run reaches its end."""

import os
import re
import signal

import psutil
import pytest
from program_runs import hang_every_node, lines_of, nodes_of, processes_of, result_of, start, train

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
    """All at once; then the replay's server alone."""
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
    assert hang_every_node(place / "stopped", process, output) == NODES
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


LOOPING = """
import os
import pathlib

from classact.models import registry

FIRST = pathlib.Path(__file__).with_name("the learner has looped")


def looping(name, num_classes, image_shape, patch_size):
    shapes = {"num_classes": num_classes, "image_shape": image_shape, "patch_size": patch_size}
    model = registry.create("vit_mu_1_1", **shapes)

    def apply(variables, batch, *, train, rng=None):
        # The launcher and the other nodes trace it, too.
        if train and os.environ.get("CLASSACT_TASK") == "learner" and not FIRST.exists():
            FIRST.touch()
            while True:
                pass
        return model.apply(variables, batch, train=train, rng=rng)

    return registry.Model(name, model.init, apply)
"""


def test_a_learner_in_a_users_endless_loop_is_started_again(place):
    """With the place in the user's code, which the first process alone gets stuck in."""
    (place / "user_models.py").write_text(LOOPING)
    fields = [
        "--config.policy=uniform",
        "--config.learner.model=user_models:looping",
        "--config.hung_seconds=10",
    ]
    done = train(place, "looping", "--launch=processes", *fields)

    assert done.returncode == 0, done.stderr
    result = result_of(place, "looping")
    assert (result["status"], result["steps"], result["restarts"]) == ("completed", 60, {"learner": 1})
    assert re.search(
        r"task learner did not get on for 1\d s; it last said, .*compilation: working, 0 done, .*, "
        r"in .*user_models\.py, line \d+ \(apply\).*, and was killed",
        done.stdout + done.stderr,
    )
