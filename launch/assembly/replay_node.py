"""A Launchpad node that serves a data set's tables.

Launchpad's own `ReverbNode` imports Reverb, and with it TensorFlow, wherever the
program is built, its server is never stopped, and without a checkpointer it
leaves a temporary directory; this one avoids all three.
"""

import os
import pathlib
import threading

from classact import environments
from classact.launch.assembly.launchpad import address as lp_address
from classact.launch.assembly.launchpad import base, lp
from classact.launch.engines.ports import check_closed
from classact.launch.engines.task import TASK_VARIABLE
from classact.nodes import activity
from classact.replay import alive, server_process, tables
from classact.replay.config import TableConfig


class AddressHandle(base.Handle[str]):
    """Dereferences to the server's `host:port`."""

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
        self._address = lp_address.Address("reverb")
        self.allocate_address(self._address)

    def create_handle(self) -> AddressHandle:
        """Returns a handle that gives other nodes the address."""
        return self._track_handle(AddressHandle(self._address))

    def run(self) -> None:
        """Serves until the program's stop event.

        Raises:
            PortTakenError: if something else has the port.
            EnvironmentMissingError: if there is no Python with Reverb.
            ReplayServerError: if the server ends by itself; says what it said last.
        """
        address = self._address.resolve()
        port = lp_address.get_port_from_address(address)
        # The launcher looked a while ago: Reverb would share the port and say nothing.
        check_closed([(os.environ.get(TASK_VARIABLE, "replay"), address)])
        made = tables.make_tables(self._tables, self._record_bytes)
        spec = server_process.ServerSpec(made, port, self._folder)
        command = server_process.command(spec, environments.replay_python())
        server = server_process.ServerProcess(command)
        # One that hangs does not end: the heartbeat of this process then says that it does not get on.
        attend = ("tables", alive.Alive(address, server.pid), lp.stop_event())
        threading.Thread(target=activity.attend, args=attend, name="attend", daemon=True).start()
        server.run(lp.stop_event())
