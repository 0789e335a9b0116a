"""Only who starts a run may write what it executes."""

import os
import stat

import pytest

from classact.experiments.config import ConfigError
from classact.launch.engines import folders
from classact.launch.engines.outcome import LaunchError


@pytest.fixture(params=[0o022, 0o002, 0o000])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_work_directory_is_the_users_and_at_most_the_groups(tmp_path, umask):
    folders.make_work_directory(tmp_path / "runs" / "one")
    assert mode_of(tmp_path / "runs" / "one") == 0o775 & ~umask
    folders.check_work_directory(tmp_path / "runs" / "one")
    # One that is there stays as it is.
    (tmp_path / "runs" / "one").chmod(0o700)
    folders.make_work_directory(tmp_path / "runs" / "one")
    assert mode_of(tmp_path / "runs" / "one") == 0o700


def test_a_work_directory_in_which_anybody_may_replace_files_is_refused(tmp_path):
    folders.check_work_directory(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"workdir='.*/file' is not a directory"):
        folders.check_work_directory(tmp_path / "file")
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=r"workdir='.*': every user .*chmod o-w"):
        folders.check_work_directory(tmp_path)
    tmp_path.chmod(0o1777)  # As /tmp: nobody may replace another's files.
    folders.check_work_directory(tmp_path)


def test_a_private_folder_is_the_users_alone(tmp_path, umask):
    for path in (tmp_path / "run" / "tasks", tmp_path / "again"):
        folders.make_private(path)
        assert mode_of(path) == 0o700
        (path / "kept").touch()
        path.chmod(0o777)
        folders.make_private(path)
        assert mode_of(path) == 0o700 and (path / "kept").exists()


def test_what_is_no_folder_of_the_users_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    for name in ("file", "link"):
        with pytest.raises(LaunchError, match=rf"{name}: must be a folder of the user"):
            folders.make_private(tmp_path / name)
    monkeypatch.setattr(os, "geteuid", lambda: 1 + (tmp_path / "theirs").stat().st_uid)
    with pytest.raises(LaunchError, match="theirs: must be a folder of the user"):
        folders.make_private(tmp_path / "theirs")


@pytest.mark.parametrize("path", [".", "new", "new/and/deeper"])
def test_a_directory_that_can_be_made_is_made_by_make_alone(tmp_path, path):
    folders.check_work_directory(tmp_path / path)
    assert not list(tmp_path.iterdir())
    folders.make_work_directory(tmp_path / path)
    assert (tmp_path / path).is_dir()


def test_a_link_to_nothing_is_no_directory(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is not a directory; name another one"):
        folders.check_work_directory(tmp_path / "run")
    with pytest.raises(LaunchError, match="cannot be made"):
        folders.make_work_directory(tmp_path / "run")


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    # Not by permissions: root may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ConfigError, match=f"workdir='{tmp_path}/a/run': {tmp_path} cannot be written"):
        folders.check_work_directory(tmp_path / "a" / "run")
