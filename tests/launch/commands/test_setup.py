"""`classact setup`; that it makes an environment which works is what every test with a replay shows."""

import fcntl
import pathlib
import subprocess
import sys

import pytest

from classact import environments
from classact.launch.commands import cli, setup

pytestmark = pytest.mark.usefixtures("clean_flags")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path / "made"))
    return tmp_path / "made"


@pytest.fixture
def made(folder):
    """Both parts, as far as can be seen from outside."""
    for part in (environments.LAUNCHPAD, environments.REPLAY):
        (folder / part.name / "bin").mkdir(parents=True)
        (folder / part.name / "bin" / "python").touch()
        environments.mark_whole(part, folder)
    return folder


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


def test_done_again_it_changes_nothing(made, no_network, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert cli.main(["classact", "setup"]) == 0
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    assert str(made) in capsys.readouterr().err


def test_launchpads_files_are_unpacked_anew_after_an_interruption(made):
    (made / "launchpad" / "half").mkdir()
    (made / "launchpad" / ".made-from").unlink()
    assert setup.set_up() == made
    assert (environments.launchpad_folder() / "launchpad" / "program.py").is_file()
    assert not (made / "launchpad" / "half").exists()


def test_without_a_network_one_line_says_what_to_do_and_nothing_is_taken_for_whole(
    folder, no_network, capsys
):
    assert cli.main(["classact", "setup"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("classact: ") and "PIP_INDEX_URL" in last
    with pytest.raises(environments.EnvironmentMissingError):
        environments.launchpad_folder()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["classact", "setup", f"--folder={tmp_path}/file/below"]) == 1
    assert "--folder=DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("python", "said"), [(sys.executable, "Reverb needs 3.11 or 3.10"), ("/none", "cannot be run")]
)
def test_a_python_that_does_not_suit_is_bad_input(folder, capsys, python, said):
    assert cli.main(["classact", "setup", f"--python={python}"]) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()


def test_a_second_one_waits_for_the_first_and_takes_what_it_made(made):
    mark = made / "replay" / ".made-from"
    content = mark.read_text()
    mark.unlink()
    with open(made / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [str(pathlib.Path(sys.executable).parent / "classact"), "setup"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            mark.write_text(content)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.wait(timeout=60) == 0
    # It was taken as it is: this one has no Reverb.
    assert (made / "replay" / "bin" / "python").stat().st_size == 0


def test_uv_takes_the_index_that_pip_takes(monkeypatch):
    for variable in (
        "UV_DEFAULT_INDEX",
        "UV_INDEX_URL",
        "UV_INDEX",
        "UV_EXTRA_INDEX_URL",
        "UV_INDEX_STRATEGY",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://lab/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://more/simple")
    variables = setup.uv_variables()
    assert variables["UV_DEFAULT_INDEX"] == "https://lab/simple"
    assert variables["UV_INDEX"] == "https://more/simple"
    monkeypatch.setenv("UV_INDEX_URL", "https://own/simple")
    assert "UV_DEFAULT_INDEX" not in setup.uv_variables()
