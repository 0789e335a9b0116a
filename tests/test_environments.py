import os
import pathlib
import subprocess
import sys

import pytest

from classact import environments
from classact.environments import LAUNCHPAD, REPLAY, EnvironmentMissingError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in (LAUNCHPAD.variable, REPLAY.variable):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def make(folder):
    (folder / "replay" / "bin").mkdir(parents=True)
    (folder / "replay" / "bin" / "python").symlink_to("/bin/true")


def test_a_part_that_was_made_is_found(folder):
    make(folder)
    environments.mark_whole(REPLAY, folder)
    assert environments.replay_python() == folder / "replay" / "bin" / "python"


def test_what_is_missing_is_said_with_the_command_that_makes_it(folder):
    with pytest.raises(EnvironmentMissingError, match=rf"nothing is at {folder}/launchpad.*`classact setup`"):
        environments.launchpad_folder()


def test_a_part_that_was_not_made_to_its_end_is_none(folder):
    make(folder)
    with pytest.raises(EnvironmentMissingError, match="unfinished or of another version"):
        environments.replay_python()


def test_a_part_of_another_version_is_none(folder):
    make(folder)
    environments.mark_whole(REPLAY, folder)
    mark = next((folder / "replay").glob(".*"))
    mark.write_text(mark.read_text()[::-1])
    with pytest.raises(EnvironmentMissingError, match="unfinished or of another version"):
        environments.replay_python()


def test_a_part_whose_python_was_removed_is_none(folder):
    make(folder)
    environments.mark_whole(REPLAY, folder)
    python = folder / "replay" / "bin" / "python"
    python.unlink()
    python.symlink_to(folder / "removed")
    with pytest.raises(EnvironmentMissingError):
        environments.replay_python()


def test_a_variable_names_another_place(folder, monkeypatch):
    monkeypatch.setenv(REPLAY.variable, "/bin/true")
    assert environments.replay_python() == pathlib.Path("/bin/true")
    monkeypatch.setenv(REPLAY.variable, str(folder / "none"))
    with pytest.raises(EnvironmentMissingError, match=REPLAY.variable):
        environments.replay_python()


def test_where_nobody_may_write_the_users_own_folder_is_next(folder, monkeypatch):
    monkeypatch.delenv(environments.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    assert environments.folders()[1] == folder / "classact"
    make(folder / "classact")
    environments.mark_whole(REPLAY, folder / "classact")
    monkeypatch.setattr(environments.sys, "prefix", str(folder / "system"))
    assert environments.replay_python() == folder / "classact" / "replay" / "bin" / "python"


def test_the_two_are_here():
    assert os.access(environments.replay_python(), os.X_OK)
    assert (environments.launchpad_folder() / "launchpad" / "__init__.py").is_file()


def test_versions_are_those_that_the_locks_pin():
    found = environments.versions()
    assert sorted(found) == ["dm-launchpad", "dm-reverb", "tensorflow-cpu"]
    locks = LAUNCHPAD.lock_file.read_text() + REPLAY.lock_file.read_text()
    assert all(f"{name}=={version} " in locks for name, version in found.items())


def test_of_what_is_not_here_there_is_no_version(folder):
    assert environments.versions() == {}


@pytest.mark.parametrize("missing", [LAUNCHPAD, REPLAY])
def test_a_run_is_refused_in_one_line_before_anything_starts(missing, tmp_path):
    # In a process of its own: this one has loaded Launchpad.
    both = {LAUNCHPAD: environments.launchpad_folder(), REPLAY: environments.replay_python()}
    named = {part.variable: str(place) for part, place in both.items() if part is not missing}
    kept = {name: value for name, value in os.environ.items() if name != missing.variable}
    config = environments.__file__.replace("environments.py", "experiments/configs/classification.py")
    command = [sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()", "train"]
    command += [f"--config={config}", "--config.train_data=digits", f"--workdir={tmp_path}/run"]
    done = subprocess.run(
        command,
        env={**kept, **named, environments.FOLDER_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"classact: {missing.what}: ") and "`classact setup`" in line
    assert not (tmp_path / "run").exists()
