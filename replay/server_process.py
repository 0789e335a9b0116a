"""A replay server as a child process, under the Python that has Reverb."""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

from classact.replay import folders
from classact.replay.tables import Table

_PROGRAM = pathlib.Path(__file__).resolve().with_name("server_program.py")
# To load libraries on a slow disk, and the tables that were saved.
READY_SECONDS = 300.0
_STOP_SECONDS = 10.0
# How often it is looked whether it still runs.
_LOOK_SECONDS = 0.2
# Lines of what it said last that an error tells.
_LAST_WORDS = 20
_READY = b"ready\n"


class ReplayServerError(RuntimeError):
    """The server ended by itself, or did not begin."""


@dataclasses.dataclass(frozen=True)
class ServerSpec:
    """What is served.

    Attributes:
        tables: of the shard.
        socket: path of the Unix socket at which it listens, at most 107 bytes; see `unix_listener`.
        folder: where the tables are saved and found again, see `folders`.
    """

    tables: Sequence[Table]
    socket: pathlib.Path
    folder: pathlib.Path


def command(spec: ServerSpec, python: pathlib.Path) -> list[str]:
    """The command that serves until its standard input is closed, or its parent process is gone.

    The server begins with the newest tables that were saved in the folder; what the server of
    an earlier process wrote there and nobody took is removed, by this call.

    Args:
        spec: what is served.
        python: that has Reverb.
    """
    shutil.rmtree(spec.folder / folders.NEW, ignore_errors=True)
    newest = max(folders.steps(spec.folder), default=None)
    argument = {
        "tables": [table.for_server() for table in spec.tables],
        "socket": str(spec.socket),
        "written": str(spec.folder / folders.NEW),
        "loaded": None if newest is None else str(spec.folder / str(newest)),
        "parent": os.getpid(),
    }
    # Isolated: this Python's variables and folders are not for the other one.
    return [str(python), "-I", str(_PROGRAM), json.dumps(argument)]


def check_command(python: pathlib.Path) -> list[str]:
    """The command that tries whether a Python can serve: else it fails, and says why."""
    tried = 'import runpy, sys; runpy.run_path(sys.argv[1])["load_reverb"]()'
    return [str(python), "-I", "-c", tried, str(_PROGRAM)]


class ServerProcess:
    """A running server. It dies with the thread that made it, so make it in one that lasts as long."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts it; `wait_ready` tells when it answers.

        Args:
            command: of `command`, maybe behind one that prepares its surroundings and becomes it.
        """
        # Not closed by a `with`: it outlives this call.
        self._popen = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._popen.stdin and self._popen.stdout and self._popen.stderr
        self._stdin: IO[bytes] = self._popen.stdin
        self._last_words: collections.deque[str] = collections.deque(maxlen=_LAST_WORDS)
        self._changed = threading.Condition()
        self._ready = False
        self._ended = False
        self._pass_on_thread = _start(self._pass_on, self._popen.stderr)
        _start(self._hear, self._popen.stdout)
        _start(self._wait)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._popen.pid

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Blocks until the tables are served.

        Raises:
            ReplayServerError: if the server ends before, or that takes over `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready or self._ended, timeout):
                raise ReplayServerError(f"the replay server does not serve after {timeout} s")
        if not self._ready:
            raise self._error()

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop`, then stops the server.

        Raises:
            ReplayServerError: if the server ends by itself.
        """
        try:
            while not stop.wait(_LOOK_SECONDS):
                if self._ended:
                    raise self._error()
        finally:
            self.stop()

    def stop(self, timeout: float = _STOP_SECONDS) -> None:
        """Asks the server to end, which takes it moments; kills it after `timeout` seconds."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        # One that does not serve yet has nothing to finish.
        if not self._ready or not self._join(timeout):
            self.kill()

    def kill(self) -> None:
        """Ends the server at once."""
        self._popen.kill()
        self._join(_STOP_SECONDS)

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _join(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, timeout)

    def _wait(self) -> None:
        # Also counts its processor time as that of a child of this process.
        self._popen.wait()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _hear(self, stdout: IO[bytes]) -> None:
        with stdout:
            for line in stdout:
                if line == _READY:
                    with self._changed:
                        self._ready = True
                        self._changed.notify_all()

    def _pass_on(self, stderr: IO[bytes]) -> None:
        """Lets its words appear where ours do, and remembers the last."""
        with stderr:
            for line in stderr:
                text = line.decode(errors="replace").rstrip("\n")
                self._last_words.append(text)
                # The log may be on a disk that is full; the server must not be held up by it.
                with contextlib.suppress(OSError, ValueError):
                    print(text, file=sys.stderr, flush=True)

    def _error(self) -> ReplayServerError:
        self._pass_on_thread.join(_STOP_SECONDS)
        said = "\n".join(self._last_words)
        status = self._popen.returncode
        end = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        return ReplayServerError(f"the replay server ended with {end}" + (f":\n{said}" if said else ""))


def _start(target: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, name="replay server", daemon=True)
    thread.start()
    return thread
