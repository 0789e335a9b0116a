"""Runs the parts of a sweep, several at once, each a `classact train` of its own."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from classact.experiments import records, resolution
from classact.experiments.config import ConfigError
from classact.experiments.curves import RunError
from classact.experiments.sweeps import Part
from classact.launch.commands import resume
from classact.launch.engines import folders
from classact.launch.engines.interface import Engine
from classact.launch.engines.local import guard
from classact.launch.engines.outcome import LaunchError

_COMMAND = "classact.launch.commands.submitted"
# How long a run that is asked to stop has, beyond what it was configured with.
_STOP_SECONDS = 30.0
_POLL_SECONDS = 1.0
_LAST_LINES = 3


@dataclasses.dataclass(frozen=True)
class Ended:
    """How one run of a sweep has ended.

    Attributes:
        part: the run.
        record: what is kept of it; None if it failed.
        said: if it failed, the last lines of what it said.
    """

    part: Part
    record: records.Record | None
    said: str = ""


class Runs:
    """The runs of a sweep in one directory."""

    def __init__(
        self, out: pathlib.Path, launch: str, engine: Engine, jobs: int, parts: Mapping[str, Part]
    ) -> None:
        """Nothing is started.

        Args:
            out: the sweep's directory; a run's is `out/<name>`.
            launch: the engine's name.
            engine: it.
            jobs: how many runs at once; of those that are one process each has a core.
            parts: all that may be run, by name.
        """
        self._parts = parts
        self.out = out
        self._launch = launch
        self._engine = engine
        self._jobs = jobs
        self._cores: list[int | None] = list(_cores(jobs)) if engine.one_process else [None] * jobs
        self._lock = threading.Lock()

    def folder(self, name: str) -> pathlib.Path:
        """The run directory of a part."""
        return self.out / name

    def has_ended(self, name: str) -> bool:
        """Whether a part's run directory holds a run with a result that stays: completed, or diverged."""
        try:
            result = json.loads((self.folder(name) / "result.json").read_text())
        except (OSError, ValueError):
            return False
        return isinstance(result, dict) and (
            result.get("status") == "completed" or result.get("diverged") is not None
        )

    def record(self, part: Part) -> records.Record:
        """The record of a part that has ended.

        Raises:
            ConfigError: if its directory holds a run of another configuration.
            RunError: if its files are damaged.
        """
        self.check(part)
        references = part.changes_of_references(self._parts)
        return records.of_run(part.name, part.changes, references, self.folder(part.name))

    def check(self, part: Part) -> None:
        """Checks that a part's directory holds no run of another configuration.

        Raises:
            ConfigError: if it does.
        """
        resume.earlier(resolution.resolve(self._fields(part)), self.folder(part.name))

    def run(self, left: Sequence[Part], on_end: Callable[[Ended], None], stop: threading.Event) -> list[str]:
        """Runs parts; blocks until all have ended, or soon after `stop`.

        Args:
            left: references before what they score; what needs one that failed is not run.
            on_end: told of each end, in the calling thread.
            stop: asks those that run to end, and starts no more.

        Returns:
            The names of the parts that were not run for want of a reference.
        """
        waiting, failed, without = list(left), set[str](), list[str]()
        running: dict[concurrent.futures.Future[Ended], Part] = {}
        with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool, _stopped_by_errors(stop):
            while running or (waiting and not stop.is_set()):
                unfinished = {part.name for part in (*waiting, *running.values())}
                for part in list(waiting):
                    if set(part.references) & failed:
                        waiting.remove(part)
                        failed.add(part.name)
                        without.append(part.name)
                    elif (
                        len(running) < self._jobs
                        and not stop.is_set()
                        and not set(part.references) & unfinished
                    ):
                        waiting.remove(part)
                        running[pool.submit(self._run_one, part, stop)] = part
                ended, _ = concurrent.futures.wait(running, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    part = running.pop(future)
                    found = future.result()
                    if found.record is None:
                        failed.add(part.name)
                    on_end(found)
        return without

    def _fields(self, part: Part) -> dict[str, Any]:
        return part.placed({name: str(self.folder(name).absolute()) for name in part.references})

    def _run_one(self, part: Part, stop: threading.Event) -> Ended:
        """Runs one part; blocks until it has ended, soon after `stop`."""
        folder, log = self.folder(part.name), self.out / "logs" / f"{part.name}.txt"
        if not self._engine.resumes:
            try:
                _remove_unfinished(folder)
            except LaunchError as error:
                return Ended(part, None, str(error))
        config = self.out / "configs" / f"{part.name}.json"
        for file in (config, log):
            file.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps(self._fields(part), indent=2))
        with self._lock:
            core = self._cores.pop()
        try:
            with log.open("ab") as said:
                process = self._start(config, folder, said, core)
                status = _wait(process, stop, float(part.fields["stop_notice_seconds"]) + _STOP_SECONDS)
        finally:
            with self._lock:
                self._cores.append(core)
        if self.has_ended(part.name):
            try:
                return Ended(part, self.record(part))
            except (RunError, ConfigError) as error:
                return Ended(part, None, str(error))
        last = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return Ended(part, None, f"it ended with status {status}: {' | '.join(last)} ({log})")

    def _start(
        self, config: pathlib.Path, folder: pathlib.Path, said: object, core: int | None
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", _COMMAND, str(config), str(folder), self._launch]
        environment = {
            # The runs of a sweep compile the same programs.
            "JAX_COMPILATION_CACHE_DIR": str((self.out / "compiled").absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
            **os.environ,
        }
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environment,  # type: ignore[call-overload]
            # Ctrl-C in the terminal must reach the sweep alone: a second signal hurries a run.
            start_new_session=True,
        )  # fmt: skip
        if core is not None:
            # Before it can have more than one thread: Python takes longer to start.
            os.sched_setaffinity(process.pid, {core})
        return process


@contextlib.contextmanager
def _stopped_by_errors(stop: threading.Event) -> Iterator[None]:
    """Lets nothing go on for which nobody waits any more."""
    try:
        yield
    # Whatever ends the sweep, an interrupt too; it is raised again.
    except BaseException:
        stop.set()
        raise


def _wait(process: "subprocess.Popen[bytes]", stop: threading.Event, notice_seconds: float) -> int:
    """Waits for a run's end; after `stop` it is asked to end, and killed when its notice is over."""
    asked = 0.0
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if stop.is_set() and not asked:
            process.send_signal(signal.SIGTERM)
            asked = now
        elif asked and now - asked > notice_seconds:
            process.kill()


def _cores(jobs: int) -> Iterator[int | None]:
    """A core for each of several runs, as long as there are as many; one run alone has all."""
    usable = sorted(os.sched_getaffinity(0))
    for index in range(jobs):
        yield usable[index] if 1 < jobs <= len(usable) else None


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Removes a run that cannot go on, so that it can begin anew.

    Raises:
        LaunchError: if it is being run, or the directory holds something else.
    """
    if not folder.exists():
        return
    if any(folder.iterdir()) and not (folder / "launcher.lock").exists():
        raise LaunchError(f"{folder} is not empty, and holds no run: name another --out")
    with resume.locked(folder):
        shutil.rmtree(folder)


def locked(out: pathlib.Path) -> AbstractContextManager[None]:
    """Makes a sweep's directory, and keeps other sweeps out of it; raises a LaunchError if one is in it."""
    out.mkdir(parents=True, exist_ok=True)
    return folders.held(out / "sweep.lock", f"--out={out}: a sweep is running in it")
