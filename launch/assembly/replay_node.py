"""A Launchpad node that serves a data set's tables.

Launchpad's own `ReverbNode` imports Reverb, and with it TensorFlow, wherever the
program is built, its server is never stopped, and without a checkpointer it
leaves a temporary directory; this one avoids all three.
"""

import dataclasses
import json
import os
import pathlib
import subprocess

from classact import environments
from classact.launch.assembly.launchpad import address as lp_address
from classact.launch.assembly.launchpad import base, lp
from classact.launch.engines.ports import check_closed
from classact.launch.engines.task import TASK_VARIABLE
from classact.replay.config import TableConfig

# Runs under the Python that has Reverb; ends when this process does.
_SERVE = f"""
import importlib.util, json, pathlib, sys, threading, types
root = {str(pathlib.Path(__file__).resolve().parents[2])!r}
package = types.ModuleType("classact")
package.__path__ = [root]
sys.modules["classact"] = package
wire = types.ModuleType("classact.replay.reverb_wire")
import classact.replay
sys.modules["classact.replay.reverb_wire"] = classact.replay.reverb_wire = wire
from classact.replay import config, tables
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
made = config.TableConfig(**json.loads(sys.argv[1]))
tables.serve(made, *map(int, sys.argv[2:4]), pathlib.Path(sys.argv[4]), stop)
"""


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
        address = self._address.resolve()
        port = lp_address.get_port_from_address(address)
        # Seconds of imports after the launcher's look: Reverb would share it and say nothing.
        check_closed([(os.environ.get(TASK_VARIABLE, "replay"), address)])
        command = [
            str(environments.replay_python()),
            "-c",
            _SERVE,
            json.dumps(dataclasses.asdict(self._tables)),
        ]
        command += [str(self._record_bytes), str(port), str(self._folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
            while server.poll() is None and not lp.stop_event().wait(0.2):
                pass
            failed = server.poll()
            assert server.stdin is not None
            server.stdin.close()
            server.wait()
        if failed:
            raise RuntimeError(f"the replay server ended with {failed}")
