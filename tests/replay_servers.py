"""Replay servers for tests, each a process of its own as in a run."""

import contextlib
import pathlib
import tempfile

from classact import environments
from classact.replay import server_process, tables


class Server:
    """The tables of a data set at an address; it can die and come back."""

    def __init__(self, config, record_bytes, socket, folder, python=None):
        self.spec = server_process.ServerSpec(tables.make_tables(config, record_bytes), socket, folder)
        self.address = f"unix:{socket}"
        self._python = python or environments.replay_python()
        self.start()

    def start(self):
        self.process = server_process.ServerProcess(server_process.command(self.spec, self._python))
        self.process.wait_ready()


@contextlib.contextmanager
def serving(config, record_bytes, folder=None, python=None):
    """Yields a `Server` that serves until the block ends."""
    with tempfile.TemporaryDirectory() as made:
        server = Server(
            config, record_bytes, pathlib.Path(made) / "replay.sock", pathlib.Path(folder or made), python
        )
        try:
            yield server
        finally:
            server.process.stop()
