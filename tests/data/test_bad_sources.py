"""What a user can get wrong with the sources of `bad_sources.ROWS`: each is answered in one line."""

import bad_sources
import numpy as np
import pytest

from classact.data.source import DataError
from classact.data.specs import open_source
from classact.experiments.configs import classification
from classact.launch.commands import cli

CONFIG = classification.__file__
WORDS = dict(bad_sources.ROWS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    bad_sources.write(folder)
    return folder


@pytest.fixture
def place(written, monkeypatch, tmp_path):
    monkeypatch.chdir(written)
    monkeypatch.syspath_prepend(written)
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


def holds(answer, words):
    """Whether a line has the words, one behind the other."""
    for part in words.split("…"):
        _, found, answer = answer.partition(part.strip())
        if not found:
            return False
    return True


def test_there_are_enough_of_them():
    kinds = {spec.partition(":")[0] for spec in WORDS}
    assert len(WORDS) == len(bad_sources.ROWS) >= 60
    assert kinds == {
        "parquet", "csv", "tsv", "tar", "tfrecord", "arrayrecord", "tfds", "hf", "python", "grain",
    }  # fmt: skip


@pytest.mark.parametrize("spec", WORDS)
def test_a_bad_source_is_one_line(place, spec):
    with pytest.raises(DataError) as raised:
        source = open_source(spec, "train")
        source.batch(np.arange(source.num_examples))
    answer = str(raised.value)
    assert holds(answer, WORDS[spec]), answer
    assert "\n" not in answer


@pytest.mark.parametrize("spec", ["csv:{a,b}.csv", "tar:hole", "python:my_rows:two"])
def test_the_command_ends_with_status_2(place, spec, tmp_path, capsys, clean_flags):
    run = tmp_path / "run"
    command = ["train", f"--config={CONFIG}", f"--workdir={run}", f"--config.train_data={spec}"]
    assert cli.main(["classact", *command]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert holds(said[-1], WORDS[spec]), said
    assert not run.exists()
