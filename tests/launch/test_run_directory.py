"""Where a run may leave its files."""

import os

import pytest

from classact.experiments.config import ConfigError
from classact.launch import run_directory
from classact.launch.outcome import LaunchError


@pytest.mark.parametrize("path", [".", "new", "new/and/deeper"])
def test_a_directory_that_can_be_made_is_made_by_make_alone(tmp_path, path):
    run_directory.check(tmp_path / path)
    assert not list(tmp_path.iterdir())
    run_directory.make(tmp_path / path)
    assert (tmp_path / path).is_dir()


def test_a_link_to_nothing_is_no_directory(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is not a directory; name another one"):
        run_directory.check(tmp_path / "run")
    with pytest.raises(LaunchError, match="cannot be made"):
        run_directory.make(tmp_path / "run")


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    # Not by permissions: root may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ConfigError, match=f"workdir='{tmp_path}/a/run': {tmp_path} cannot be written"):
        run_directory.check(tmp_path / "a" / "run")
