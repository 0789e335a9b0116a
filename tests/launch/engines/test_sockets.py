import os
import signal
import subprocess
import sys
import tempfile

import pytest

from classact import calls
from classact.calls import addresses
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.sockets import PrivateSockets


def path_of(address):
    return addresses.unix_path(address)


def test_sockets_are_in_a_folder_that_is_this_users_alone(tmp_path):
    with PrivateSockets(tmp_path / "base") as sockets:
        first, second = sockets("learner"), sockets("inference-a b/c" + 200 * "x")
        server = calls.Server(second, {"get": lambda: 7})
        server.start()
        assert calls.Client(second, timeout=10).call("get") == 7
        server.stop()
        folder = os.path.dirname(path_of(first))
        assert os.path.dirname(path_of(second)) == folder
        assert [os.stat(found).st_mode & 0o777 for found in (folder, tmp_path / "base")] == [0o700, 0o700]
    assert list((tmp_path / "base").iterdir()) == []


def test_launchers_do_not_touch_each_others(tmp_path):
    with PrivateSockets(tmp_path) as first, PrivateSockets(tmp_path) as second:
        assert path_of(first("a")) != path_of(second("a"))
        assert len(list(tmp_path.iterdir())) == 2
        second.close()
        assert [str(found) for found in tmp_path.iterdir()] == [os.path.dirname(path_of(first("a")))]


KILLED = """
import sys, time
from pathlib import Path
from classact.launch.engines.sockets import PrivateSockets
sockets = PrivateSockets(Path(sys.argv[1]))
print(sockets("learner").removeprefix("unix:"), flush=True)
sys.stdin.read()
"""


def test_what_a_killed_launcher_left_is_removed_by_the_next_and_only_that(tmp_path):
    other = tmp_path / "notes.txt"
    other.touch()
    launcher = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = os.path.dirname(launcher.stdout.readline().strip())
    with PrivateSockets(tmp_path):
        assert os.path.isdir(folder)  # It lives.
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    assert os.path.isdir(folder)
    with PrivateSockets(tmp_path) as sockets:
        assert not os.path.exists(folder)
        assert os.path.isdir(os.path.dirname(path_of(sockets("a"))))
    assert list(tmp_path.iterdir()) == [other]


def test_links_are_not_followed(tmp_path):
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    base.mkdir(mode=0o700)
    (base / "link").symlink_to(elsewhere)
    with PrivateSockets(base):
        assert (elsewhere / "precious").exists()


@pytest.mark.parametrize("what", ["link", "open", "file"])
def test_a_trap_in_its_place_is_refused(tmp_path, what):
    base = tmp_path / "base"
    if what == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        base.symlink_to(tmp_path / "other")
    elif what == "open":
        base.mkdir()
        base.chmod(0o755)
    else:
        base.touch()
    with pytest.raises(LaunchError, match="must be a folder of the user"):
        PrivateSockets(base)


def test_a_long_directory_for_temporary_files_is_not_used(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with PrivateSockets() as sockets:
        assert path_of(sockets("learner")).startswith(f"/tmp/classact-{os.geteuid()}/")
        assert len(path_of(sockets("x" * 200))) <= addresses.LONGEST_PATH
