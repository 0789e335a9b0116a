"""Looks into a run that is in progress, and breaks things in it."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import training_runs

from classact.calls import addresses

_REAP_SECONDS = 20.0
# A socket's state in /proc/net/unix.
_CONNECTED = "03"


def nodes_of(run: pathlib.Path) -> dict[str, psutil.Process]:
    """The processes of a run that are there now, by node."""
    found = {}
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(
            part.startswith(f"--data_file={run}/tasks/") for part in command
        ):
            found[training_runs.node_name(command)] = process
    return found


def kill(process: psutil.Process) -> None:
    """Sends SIGKILL to a node, and waits until it is gone.

    Raises:
        TimeoutError: if it is not.
    """
    try:
        process.kill()
        process.wait(_REAP_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        raise TimeoutError(f"{process}: not gone {_REAP_SECONDS:.0f} s after SIGKILL") from None


def serves(run: pathlib.Path, node: str) -> bool:
    """Whether something listens at a node's address."""
    return addresses.answers(_address(run, node))


def connections(run: pathlib.Path, node: str) -> int:
    """How many connections there are to a node's address, on this machine."""
    address = _address(run, node)
    path = addresses.unix_path(address)
    if path is not None:
        # Those that were accepted have the server's path, in the last field.
        sockets = [line.split() for line in pathlib.Path("/proc/net/unix").read_text().splitlines()]
        return sum(fields[5] == _CONNECTED and fields[-1] == path for fields in sockets)
    _, port = addresses.host_and_port(address)
    return sum(
        connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for connection in psutil.net_connections(kind="tcp")
    )


def _address(run: pathlib.Path, node: str) -> str:
    endpoints = json.loads((run / "endpoints.json").read_text())
    kind, _, rest = node.partition("-")
    return endpoints[f"{kind}/{rest}" if rest else kind][0]


def metrics_of(run: pathlib.Path, node: str) -> list[dict[str, Any]]:
    """The whole lines of a node's metrics so far."""
    path = run / "metrics" / f"{node}.jsonl"
    return list(_whole_lines(path)) if path.exists() else []


@dataclasses.dataclass(frozen=True)
class Updates:
    """The updates of a run, those that were undone left out.

    Attributes:
        examples: ids of the examples trained on, by step, in the order of the steps.
        repeated: updates that were made again because a learner went back to a checkpoint.
    """

    examples: dict[int, list[int]]
    repeated: int

    @property
    def missing(self) -> int:
        """Steps up to the last one that have no update."""
        return max(self.examples, default=0) - len(self.examples)

    def trained_twice(self, last: int | None = None) -> int:
        """Examples that were trained on more than once among the last ones, or among all."""
        ids = np.concatenate([np.asarray(batch) for batch in self.examples.values()])
        ids = ids if last is None else ids[-last:]
        return len(ids) - len(np.unique(ids))


def updates_of(run: pathlib.Path) -> Updates:
    """Reads what a run with `record_examples` has trained on so far."""
    found: dict[int, list[int]] = {}
    repeated = 0
    path = run / "trained_examples.jsonl"
    for record in _whole_lines(path) if path.exists() else ():
        step = record.pop("step")
        while found and next(reversed(found)) >= step:
            found.popitem()
            repeated += 1
        (found[step],) = (ids for name, ids in record.items() if "/" not in name)
    return Updates(found, repeated)


def _whole_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    # A process that was killed may have left half a line, and one that lives may be writing.
    return (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))


def damage(checkpoint: pathlib.Path) -> None:
    """Cuts off all but the first bytes of each larger file, as a disk that lost blocks would."""
    for path in checkpoint.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])


def fill(folder: pathlib.Path) -> pathlib.Path:
    """Takes all space of a file system; returns the file that holds it."""
    ballast = folder / "ballast"
    chunk = bytes(2**20)
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                # What fits of the last one is written as well.
                file.write(chunk)
        except OSError:
            if shutil.disk_usage(folder).free > len(chunk):
                raise
    return ballast
