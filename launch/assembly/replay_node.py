"""A Launchpad node that serves a data set's tables.

Launchpad's own `ReverbNode` imports Reverb, and with it TensorFlow, wherever the
program is built, its server is never stopped, and without a checkpointer it
leaves a temporary directory; this one avoids all three.
"""

import contextlib
import os
import pathlib
import tempfile
import threading
from collections.abc import Iterator

from classact import environments
from classact.calls.addresses import LONGEST_PATH, UNIX, unix_path
from classact.launch.assembly.launchpad import address as lp_address
from classact.launch.assembly.launchpad import base, lp
from classact.nodes import activity
from classact.replay import alive, certificate, gate, server_process, tables
from classact.replay.config import TableConfig

# Launchpad's name for the address of a replay's server.
ADDRESS = "reverb"
# Of the server's own socket behind a port, and what they take of a path.
_PREFIX, _NAME = "classact-", "replay"
_BELOW = 1 + len(_PREFIX) + 8 + 1 + len(_NAME)


class AddressHandle(base.Handle[str]):
    """Dereferences to the server's address."""

    def __init__(self, address: lp_address.Address) -> None:
        self._address = address

    def dereference(self) -> str:
        """Returns the address; nothing is connected yet."""
        return self._address.resolve()


class ReplayNode(lp.PyNode):
    """Runs one Reverb server, a child of its process, until the program stops."""

    def __init__(self, tables: TableConfig, record_bytes: int, folder: pathlib.Path) -> None:
        """Describes the server; it starts when the node runs.

        Args:
            tables: of the data set.
            record_bytes: size of one packed example.
            folder: where the tables are saved and found again.
        """
        super().__init__(self.run)
        self._tables = tables
        self._record_bytes = record_bytes
        self._folder = folder
        self._address = lp_address.Address(ADDRESS)
        self.allocate_address(self._address)

    def create_handle(self) -> AddressHandle:
        """Returns a handle that gives other nodes the address."""
        return self._track_handle(AddressHandle(self._address))

    def run(self) -> None:
        """Serves until the program's stop event.

        Raises:
            OSError: if something else has the port.
            EnvironmentMissingError: if there is no Python with Reverb.
            ReplayServerError: if the server ends by itself; says what it said last.
        """
        made = tables.make_tables(self._tables, self._record_bytes)
        with _socket_behind(self._address.resolve()) as socket:
            spec = server_process.ServerSpec(made, socket, self._folder)
            command = server_process.command(spec, environments.replay_python())
            server = server_process.ServerProcess(command)
            # One that hangs does not end: this process's heartbeat then says that it does not get on.
            attend = ("tables", alive.Alive(f"{UNIX}{socket}", server.pid), lp.stop_event())
            threading.Thread(target=activity.attend, args=attend, name="attend", daemon=True).start()
            server.run(lp.stop_event())


@contextlib.contextmanager
def _socket_behind(address: str) -> Iterator[pathlib.Path]:
    """Where the server is to listen, to be reached at an address: over TCP with the run's key alone."""
    path = unix_path(address)
    if path is not None:
        yield pathlib.Path(path)
        return
    # Some systems name folders for temporary files at length.
    too_long = len(os.fsencode(tempfile.gettempdir())) + _BELOW > LONGEST_PATH
    # This user's alone.
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir="/tmp" if too_long else None) as folder:
        socket = pathlib.Path(folder) / _NAME
        with contextlib.closing(gate.Gate(address, socket, certificate.of_this_process())):
            yield socket
