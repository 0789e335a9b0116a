"""Whole programs that go by what was made before: score files, and the order of another run."""

import json
import subprocess

import numpy as np
import pytest
import scored_digits
from program_runs import CLASSACT, environment, result_of, start, train, wait_until
from test_recovery import kill_all, trained_on

from classact.data import score_files
from classact.nodes import checkpoints


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a reference, its score files by one process and by two, and a run that used them."""
    folder = tmp_path_factory.mktemp("amortised")
    (folder / "tmp").mkdir()
    scored_digits.save_run(folder / "reference")
    for processes in (1, 2):
        arguments = [f"--reference={folder / 'reference'}", f"--out={folder / f'scores{processes}'}"]
        noise = ["--label_noise=0.2", "--batch_size=64", f"--processes={processes}"]
        subprocess.run(
            [*CLASSACT, "score", *arguments, *noise],
            env=environment(folder),
            cwd=folder,
            check=True,
            timeout=200,
        )
    return folder


@pytest.fixture(scope="module")
def learned(place):
    """A run that selects by score files alone, and records what it learned from."""
    scores = f"--config.reference.scores={place / 'scores1'}"
    done = train(place, "learned", "--config.policy=easy_reference", scores, "--config.record_examples=True")
    assert done.returncode == 0, done.stderr
    return place / "learned"


def test_the_files_are_the_same_whatever_the_number_of_processes(place):
    one, two = (sorted((place / f"scores{number}").glob("*.parquet")) for number in (1, 2))
    assert [path.name for path in one] == [path.name for path in two]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    # Nothing else that a reader of Parquet would look at.
    assert {path.suffix for path in (place / "scores2").glob("[!._]*")} == {".parquet"}


def test_examples_are_drawn_by_the_scores_of_the_files(place, learned):
    losses = score_files.read(place / "scores1").losses
    lines = [json.loads(line) for line in (learned / "trained_examples.jsonl").read_text().splitlines()]
    assert len(lines) == 60
    for line in lines:
        found, expected = np.array(line["score/digits"], np.float32), -losses(np.array(line["digits"]))
        np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))
    # No model scored: there was no server for one, and it cost nothing in the run.
    assert not list((learned / "metrics").glob("inference-*"))
    assert (learned / "metrics" / "run_loop-digits-0.jsonl").exists()
    ledger = result_of(place, "learned")["ledger"]
    said = json.loads((place / "scores1" / "_scores.json").read_text())["cost"]
    assert ledger["scoring_macs"] == 0.0
    assert ledger["reference_pretraining_macs"] == 1000.0 + said["scoring_macs"]


def test_another_model_learns_in_that_order_although_all_is_killed(place, learned):
    fields = (
        "--config.policy=curriculum",
        f"--config.curriculum.record={learned}",
        "--config.learner.model=vit_mu_2_1",
        "--config.record_examples=True",
        "--config.checkpoint_every=10",
    )
    process = start(place, "curriculum", *fields)
    directory = place / "curriculum" / "checkpoints"
    wait_until(lambda: (checkpoints.latest_step(directory) or 0) >= 10, process, place / "curriculum.out")
    kill_all(process)
    done = train(place, "curriculum", *fields)
    assert done.returncode == 0, done.stderr
    assert "goes on from step" in done.stderr
    expected = trained_on(place, "learned")
    assert trained_on(place, "curriculum") == expected and len(expected) == 60
    result = result_of(place, "curriculum")
    assert result["ledger"]["scoring_macs"] == 0.0
    assert (
        result["ledger"]["reference_pretraining_macs"] == result_of(place, "learned")["ledger"]["total_macs"]
    )
    # Its learner reads by itself.
    endpoints = json.loads((place / "curriculum" / "endpoints.json").read_text())
    assert set(endpoints) == {"learner"}
