"""`classact serve` as a user runs it, with a trainer in another process; both are killed."""

import json
import os
import signal
import subprocess
import sys

import program_runs as runs

from classact import client

# Without labels that are redrawn; a small model, and few updates.
FIELDS = [
    *runs.SMALL,
    "--config.policy=classact_online",
    "--config.steps=40",
    "--config.checkpoint_every=10",
    "--config.evaluation.every=1000",
]
# Takes ten sub-batches, saves its place after each, and trains on the last for ever.
TRAINER = """
import json, pathlib, signal, sys
from classact import client
with client.connect(sys.argv[1], patience=200) as selection:
    for batch in selection.batches():
        state = {"number": batch["number"], "n": len(batch["id"]), **selection.state_dict()}
        pathlib.Path(sys.argv[2]).write_text(json.dumps(state))
        if batch["number"] == 9:
            signal.pause()
"""


def test_trainer_and_selector_are_killed_and_go_on(tmp_path):
    workdir, output, state = tmp_path / "run", tmp_path / "run.out", tmp_path / "state.json"
    command = [*runs.CLASSACT, "serve", f"--config={runs.CONFIG}", f"--workdir={workdir}", *FIELDS]
    with output.open("w") as log:
        serving = subprocess.Popen(
            command, env=runs.environment(tmp_path), cwd=tmp_path, stdout=log, stderr=log
        )
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(workdir), str(state)], cwd=tmp_path)
    try:
        runs.wait_until(lambda: state.exists() and '"number": 9' in state.read_text(), serving, output)
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        found = json.loads(state.read_text())
        assert (found["n"], found["next"]) == (32, 10)
        with client.connect(workdir, patience=200) as selection:
            selection.load_state_dict({"version": found["version"], "next": found["next"]})
            numbers, ids = [], set()
            for batch in selection.batches():
                if not numbers:
                    os.kill(runs.nodes_of(workdir)["learner"], signal.SIGKILL)
                numbers.append(batch["number"])
                ids |= {*batch["id"].tolist()}
                selection.report(batch["id"], batch["score"])
        # As many more as it had made since its checkpoint.
        assert numbers == list(range(10, 10 + len(numbers)))
        assert 40 <= 10 + len(numbers) <= 40 + 20 and len(ids) > 100
        assert serving.wait(60) == 0, output.read_text()
    finally:
        trainer.kill()
        serving.terminate()
        serving.wait(60)
    assert "killed by signal 9" in output.read_text() and "started again" in output.read_text()
    assert runs.result_of(tmp_path, "run")["status"] == "completed"
    line = runs.lines_of(tmp_path, "run", "serve")[-1]
    assert (line["serve/handed"], line["serve/taken"]) == (10 + len(numbers),) * 2
    assert line["serve/reported"] > 0
    # The online model is the learner: what it costs to train is counted once.
    examples = runs.result_of(tmp_path, "run")["counts"]["examples"]
    assert set(examples) == {"learner", "reference"}
    assert examples["learner"]["scored"] > 0
