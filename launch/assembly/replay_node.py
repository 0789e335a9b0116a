"""A Launchpad node that serves a data set's tables.

Launchpad's own `ReverbNode` imports Reverb, and with it TensorFlow, wherever the
program is built, its server is never stopped, and without a checkpointer it
leaves a temporary directory; this one avoids all three.
"""

import os
import pathlib

from classact.launch.assembly.launchpad import address as lp_address
from classact.launch.assembly.launchpad import base, lp
from classact.launch.engines.ports import check_closed
from classact.launch.engines.task import TASK_VARIABLE
from classact.replay.config import TableConfig


class AddressHandle(base.Handle[str]):
    """Dereferences to the server's `host:port`."""

    def __init__(self, address: lp_address.Address) -> None:
        self._address = address

    def dereference(self) -> str:
        """Returns the address; nothing is connected yet."""
        return self._address.resolve()


class ReplayNode(lp.PyNode):
    """Runs one Reverb server until the program stops."""

    def __init__(self, tables: TableConfig, record_bytes: int, folder: pathlib.Path) -> None:
        """Describes the server; it starts in the node's own process.

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
        """
        from classact.replay import tables

        address = self._address.resolve()
        port = lp_address.get_port_from_address(address)
        # Seconds of imports after the launcher's look: Reverb would share it and say nothing.
        check_closed([(os.environ.get(TASK_VARIABLE, "replay"), address)])
        tables.serve(self._tables, self._record_bytes, port, self._folder, lp.stop_event())
