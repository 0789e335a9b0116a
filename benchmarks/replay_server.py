"""A replay's server and other processes, each of its own, as in a run."""

import contextlib
import dataclasses
import json
import multiprocessing
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import replay_client

from classact import environments
from classact.replay import server_process, tables

_READY_SECONDS = 180.0
_STOP_SECONDS = 30.0


class Served(NamedTuple):
    """A server that answers.

    Attributes:
        address: "unix:/path".
        pid: of its process.
        folder: where tables are saved.
    """

    address: str
    pid: int
    folder: pathlib.Path


@contextlib.contextmanager
def serving(made: Sequence[tables.Table], place: pathlib.Path | None = None) -> Iterator[Served]:
    """Serves tables until the block ends, in a folder of its own in `place`, or of the system.

    Raises:
        ReplayServerError: if the server does not begin.
    """
    with tempfile.TemporaryDirectory(dir=place) as folder:
        socket = pathlib.Path(folder) / "socket"
        spec = server_process.ServerSpec(made, socket, pathlib.Path(folder) / "tables")
        command = server_process.command(spec, environments.replay_python())
        with server_process.ServerProcess(command) as process:
            process.wait_ready()
            yield Served(f"unix:{socket}", process.pid, spec.folder)


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[int]:
    """Runs a command that says "ready", and ends when its standard input is closed; yields its process id.

    Raises:
        RuntimeError: if it ends before it is ready.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{command[:3]}: died before it was ready")
            yield process.pid
        finally:
            process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def client(role: str, load: replay_client.Load) -> list[str]:
    """The command of `replay_client`."""
    return [sys.executable, replay_client.__file__, role, json.dumps(dataclasses.asdict(load))]


@contextlib.contextmanager
def process_of(target: Callable[..., None], *arguments: Any) -> Iterator[int]:
    """Runs a function in a process of its own until the block ends; yields its process id.

    Args:
        target: called with a pipe, for `until_closed`, and the arguments.
        *arguments: can be pickled.

    Raises:
        TimeoutError: if it is not ready in time.
    """
    # Spawned: JAX and gRPC must not be forked. A pipe and not an event: it
    # also tells each side that the other one has died.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if process.pid is None or not ours.poll(_READY_SECONDS):
            raise TimeoutError(f"{target.__name__}: not ready in {_READY_SECONDS} s")
        try:
            ours.recv()
        except EOFError:
            raise RuntimeError(f"{target.__name__}: died before it was ready") from None
        yield process.pid
    finally:
        ours.close()
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def until_closed(link: Connection) -> None:
    """Tells the other side that all is ready; blocks until it closes the pipe."""
    link.send("ready")
    with contextlib.suppress(EOFError, ConnectionResetError):
        link.recv()
