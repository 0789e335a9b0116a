"""Where a replay's server listens behind a port."""

import os
import stat
import tempfile

import pytest

from classact.calls import addresses
from classact.calls.keys import VARIABLE, Keys
from classact.launch.assembly import replay_node


@pytest.mark.parametrize("length", [20, 82, 83, 200])
def test_its_socket_has_a_path_that_can_be_listened_at(tmp_path_factory, monkeypatch, length):
    keys = tmp_path_factory.mktemp("run") / "keys.json"
    Keys.make().save(keys)
    monkeypatch.setenv(VARIABLE, str(keys))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as short:
        folder = short + "/" + "d" * (length - len(short) - 1)
        os.mkdir(folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with replay_node._socket_behind("127.0.0.1:0") as socket:
            assert len(os.fsencode(socket)) <= addresses.LONGEST_PATH
            assert str(socket).startswith(folder) == (length <= 82)
            assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert not socket.parent.exists()
