"""A scoring pass goes on from the parts that are whole, and refuses a folder that is not its own."""

import fcntl
import json
import threading

import pytest
import scored_digits

from classact.data import score_files
from classact.data.source import DataError
from classact.experiments.config import ConfigError
from classact.launch.assembly.joined_run import AttachError
from classact.launch.commands import cli, score_run
from classact.launch.engines.outcome import LaunchError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return scored_digits.save_run(tmp_path_factory.mktemp("runs") / "reference")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    with scored_digits.without_processes(monkeypatch):
        yield


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def score(run, out, stop=None, batch_size=64):
    scoring = score_run.prepare(run, out, {}, batch_size)
    return score_run.score(scoring, out, 1, stop or threading.Event())


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return scored_digits.score(run, tmp_path_factory.mktemp("scores") / "whole", patch)


def test_it_goes_on_from_the_parts_that_are_whole(run, whole, tmp_path, monkeypatch):
    stop = threading.Event()

    def one_part_only(folder, parts, count, stop, told):
        scored_digits.in_process(folder, parts[:1], count, stop, told)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(score_run.score_processes, "compute", one_part_only)
        assert not score(run, tmp_path, stop)
        assert not score(run, tmp_path, stop)
    assert list(bytes_of(tmp_path)) == ["part-000000.parquet", "part-000001.parquet"]
    with pytest.raises(score_files.ScoreFileError, match="has not ended"):
        score_files.read(tmp_path)
    # A machine that lost its power, and one that was killed.
    (tmp_path / "part-000001.parquet").write_bytes(b"")
    (tmp_path / ".part-000002.parquet.tmp").write_bytes(b"PAR1")
    before = (tmp_path / "part-000000.parquet").stat().st_mtime_ns
    assert score(run, tmp_path)
    assert bytes_of(tmp_path) == bytes_of(whole)
    assert (tmp_path / "part-000000.parquet").stat().st_mtime_ns == before
    assert not list(tmp_path.glob(".*.tmp"))
    said = [json.loads((folder / "_scores.json").read_text()) for folder in (tmp_path, whole)]
    for each in said:
        del each["seconds"]
    assert said[0] == said[1]


def test_what_is_complete_is_left_as_it_is(run, whole):
    before = (whole / "_scores.json").stat().st_mtime_ns
    assert score(run, whole)
    assert (whole / "_scores.json").stat().st_mtime_ns == before


def test_one_at_a_time(run, whole):
    with open(whole / ".score.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LaunchError, match="a `classact score` is writing it"):
            score(run, whole)


@pytest.mark.parametrize("fields", [{"label_noise": 0.3}, {"label_noise": 0.1, "data_seed": 4}])
def test_a_folder_with_other_scores(run, whole, fields):
    with pytest.raises(ConfigError, match=r"holds other scores \(step 1 of .*asked for: .*noise 0\.[13]"):
        score_run.prepare(run, whole, fields, 64)


def test_a_folder_with_something_else(run, tmp_path):
    (tmp_path / "mine.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match="something else is there"):
        score_run.prepare(run, tmp_path, {}, 64)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="something else is there"):
        score_run.prepare(run, tmp_path / "file", {}, 64)


def test_what_cannot_be_scored(run, tmp_path):
    with pytest.raises(AttachError, match="no run directory"):
        score_run.prepare(tmp_path, tmp_path / "out", {}, 64)
    with pytest.raises(DataError, match="classes differ"):
        scored = {"train_data": "icons?classes=10"}
        score_run.prepare(run, tmp_path / "out", scored, 64)
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        score_run.prepare(tmp_path, tmp_path / "out", {}, 64)


@pytest.mark.usefixtures("clean_flags")
def test_the_command(run, whole, tmp_path, capsys):
    out = tmp_path / "scores"
    assert cli.main(["classact", "score", f"--reference={run}", f"--out={out}", "--batch_size=64"]) == 0
    assert bytes_of(out) == bytes_of(whole)
    printed = capsys.readouterr()
    assert printed.out == f"completed: {out / '_scores.json'}\n"
    assert "classact: scores digits: 1,438 images" in printed.err


@pytest.mark.usefixtures("clean_flags")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out=x"], "--reference is missing"),
        (["--reference=x"], "--out is missing"),
        (["--reference=missing", "--out=x"], "no run directory"),
        (["--reference=x", "--out=x", "--label_noise=2"], "label_noise"),
    ],
)
def test_bad_arguments(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["classact", "score", *arguments]) == 2
    assert said in capsys.readouterr().err
