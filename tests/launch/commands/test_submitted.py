import json

import pytest

from classact.experiments import base
from classact.launch.commands import arguments, submitted


def test_a_saved_configuration_runs_in_its_directory(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"steps": 3}')
    called = []
    monkeypatch.setattr(submitted, "train", lambda *arguments: called.append(arguments) or 5)
    status = submitted.main([str(tmp_path / "config.json"), str(tmp_path / "run"), "slurm"])
    assert (status, called) == (5, [({"steps": 3}, tmp_path / "run", "slurm")])


def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text("{}")

    def train(*arguments_):
        raise arguments.UsageError("no such data")

    monkeypatch.setattr(submitted, "train", train)
    assert submitted.main([str(tmp_path / "config.json"), "run", "slurm"]) == 2
    assert capsys.readouterr().err == "classact: no such data\n"


@pytest.mark.parametrize("engine", ["slurm", "processes"])
def test_without_the_replay_servers_python_it_is_one_line_too(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLASSACT_REPLAY_PYTHON", "/nowhere/python")
    fields = {**base.get_config().to_dict(), "train_data": "digits", "policy": "uniform"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert submitted.main([str(tmp_path / "config.json"), str(tmp_path / "run"), engine]) == 2
    said = capsys.readouterr().err
    assert said.startswith("classact: CLASSACT_REPLAY_PYTHON=/nowhere/python: ") and said.count("\n") == 1


@pytest.mark.parametrize("number", [0, 1, 2, 4])
def test_it_takes_three_arguments(number):
    with pytest.raises(ValueError, match="unpack"):
        submitted.main(["x"] * number)
