"""Looks into a run that is in progress, and breaks things in it."""

import dataclasses
import json
import pathlib
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import training_runs

_REAP_SECONDS = 20.0
_CONNECT_SECONDS = 1.0


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
    host, port = _address(run, node)
    with socket.socket() as probe:
        probe.settimeout(_CONNECT_SECONDS)
        return probe.connect_ex((host, port)) == 0


def is_connected(run: pathlib.Path, node: str, server: str) -> bool:
    """Whether a node's process has a connection to another node's address."""
    process = nodes_of(run).get(node)
    if process is None:
        return False
    _, port = _address(run, server)
    try:
        connections = process.connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    return any(
        connection.raddr and connection.raddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for connection in connections
    )


def _address(run: pathlib.Path, node: str) -> tuple[str, int]:
    endpoints = json.loads((run / "endpoints.json").read_text())
    kind, _, rest = node.partition("-")
    host, port = endpoints[f"{kind}/{rest}" if rest else kind][0].rsplit(":", 1)
    return host, int(port)


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
        (found[step],) = record.values()
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
