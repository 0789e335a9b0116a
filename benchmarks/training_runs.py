"""Starts `classact train` and watches the CPU time and memory of each of its processes."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEMO = ROOT / "experiments" / "configs" / "demo.py"
CLASSIFICATION = ROOT / "experiments" / "configs" / "classification.py"
LAUNCHER = "launcher"
# How late a sample can be after the line of metrics that it belongs to.
_POLL_SECONDS = 0.05
_STOP_SECONDS = 20.0
_TASK_FILE = re.compile(r"--data_file=.*/([^/]+)\.pkl$")
_TASK_INDEX = re.compile(r"--lp_task_id=(\d+)$")


@dataclasses.dataclass(frozen=True)
class Sample:
    """The program's processes at the moment the learner's metrics reached a step.

    Attributes:
        step: updates made.
        time: seconds, of the monotonic clock.
        cpu_seconds: user and system time so far by node; "launcher" is the
            process that the others are children of.
        resident_bytes: by node.
    """

    step: int
    time: float
    cpu_seconds: Mapping[str, float]
    resident_bytes: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A finished run.

    Attributes:
        workdir: its run directory.
        samples: one per line of the learner's metrics.
        cpu_seconds: of the whole run with all its processes, imports and
            compilation included.
        wall_seconds: of the whole run.
    """

    workdir: pathlib.Path
    samples: tuple[Sample, ...]
    cpu_seconds: float
    wall_seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """The run's `result.json`."""
        return json.loads((self.workdir / "result.json").read_text())

    def window(self, first_step: int, last_step: int) -> tuple[Sample, Sample]:
        """The first samples at or after two steps, which exclude start and end.

        Raises:
            ValueError: if they are not two different ones.
        """
        reached = [
            next((s for s in self.samples if s.step >= step), None) for step in (first_step, last_step)
        ]
        first, last = reached
        if first is None or last is None or first.step >= last.step:
            raise ValueError(
                f"{self.workdir}: no two samples at steps {first_step} and {last_step}; "
                f"there are {[sample.step for sample in self.samples]}"
            )
        return first, last


class RunFailedError(RuntimeError):
    """A training run of a benchmark did not complete."""


class Training:
    """A training run in progress; a context manager that leaves no process behind."""

    def __init__(
        self,
        config: str,
        workdir: pathlib.Path,
        overrides: Mapping[str, Any],
        *,
        launch: str,
        env: Mapping[str, str] | None = None,
        log: pathlib.Path | None = None,
        resume: bool = False,
    ) -> None:
        """Starts the run.

        Args:
            config: configuration file, with its argument.
            workdir: the run directory; an earlier one is deleted, unless it is resumed.
            overrides: configuration fields to set.
            launch: value of `--launch`.
            env: variables to set on top of this process's.
            log: where its output goes, emptied; beside the run directory by default.
            resume: whether an earlier run in the directory goes on.
        """
        if not resume:
            shutil.rmtree(workdir, ignore_errors=True)
        workdir.parent.mkdir(parents=True, exist_ok=True)
        self._workdir = workdir
        self._log_path = log or workdir.with_suffix(".log")
        command = [
            *(sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()", "train"),
            *(f"--config={config}", f"--workdir={workdir}", f"--launch={launch}"),
            *(f"--config.{name}={value}" for name, value in overrides.items()),
        ]
        self._started = time.monotonic()
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
            )
        self._root = psutil.Process(self._process.pid)
        self._names: dict[int, str] = {}
        self._ended = threading.Event()
        self._usage: resource.struct_rusage | None = None
        threading.Thread(target=self._reap, name=f"wait {workdir.name}", daemon=True).start()

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *error: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._ended.is_set():
                return
            self._process.send_signal(number)
            self._ended.wait(_STOP_SECONDS)

    @property
    def has_ended(self) -> bool:
        """Whether the launcher is gone."""
        return self._ended.is_set()

    def kill(self) -> None:
        """Sends SIGKILL to the launcher and to all that it has started, as a loss of power does.

        Blocks until all but the launcher, for which there is `end`, are gone.

        Raises:
            TimeoutError: if one is not after some seconds.
        """
        _, *others = processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(others, timeout=_STOP_SECONDS)
        if alive:
            raise TimeoutError(f"{alive}: not gone {_STOP_SECONDS:.0f} s after SIGKILL")

    def stop(self) -> None:
        """Asks the launcher to stop, as a cluster does that wants its hosts back; returns at once."""
        self._process.send_signal(signal.SIGTERM)

    def end(self, seconds: float) -> tuple[int, str]:
        """Blocks until the launcher has ended.

        Args:
            seconds: how long at most.

        Returns:
            Its exit status, negative of the signal that killed it, and all that it said.

        Raises:
            TimeoutError: if it has not ended by then.
        """
        if not self._ended.wait(seconds):
            raise TimeoutError(f"{self._workdir}: not ended in {seconds:.0f} s; see {self._log_path}")
        return self._process.returncode, self._log_path.read_text(errors="replace")

    def _reap(self) -> None:
        # wait4 and not Popen.wait: its usage has the time of all descendants.
        _, status, self._usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()

    def watch(self) -> TrainingRun:
        """Samples at every line of the learner's metrics; blocks until the run's end.

        Raises:
            RunFailedError: if the run failed; names its log.
        """
        samples: list[Sample] = []
        steps = _StepReader(self._workdir / "metrics" / "learner.jsonl")
        while not self._ended.wait(_POLL_SECONDS):
            step = steps.newest()
            if step is not None:
                samples.append(self._sample(step))
        wall = time.monotonic() - self._started
        if self._process.returncode != 0 or self._usage is None:
            raise RunFailedError(
                f"training ended with status {self._process.returncode}: see {self._log_path}"
            )
        cpu = self._usage.ru_utime + self._usage.ru_stime
        return TrainingRun(self._workdir, tuple(samples), cpu, wall)

    def resident_bytes(self) -> tuple[int, int]:
        """Resident sizes now: of the launcher, and of all processes together."""
        sizes = self._sample(-1).resident_bytes
        return sizes[LAUNCHER], sum(sizes.values())

    def shared_bytes(self) -> dict[str, int]:
        """Proportional set sizes now by node: pages that several processes share count in parts."""
        sizes: dict[str, int] = {}
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                name = self._name(process)
                sizes[name] = sizes.get(name, 0) + process.memory_full_info().pss
        return sizes

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _sample(self, step: int) -> Sample:
        now = time.monotonic()
        cpu, resident = {}, {}
        for process in self._processes():
            # One that has just ended is left out.
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                name = self._name(process)
                with process.oneshot():
                    times = process.cpu_times()
                    cpu[name] = cpu.get(name, 0.0) + times.user + times.system
                    resident[name] = resident.get(name, 0) + process.memory_info().rss
        return Sample(step, now, cpu, resident)

    def _name(self, process: psutil.Process) -> str:
        if process.pid not in self._names:
            self._names[process.pid] = LAUNCHER if process == self._root else self._new_name(process)
        return self._names[process.pid]

    def _new_name(self, process: psutil.Process) -> str:
        name = node_name(process.cmdline())
        parent = self._names.get(process.ppid(), LAUNCHER)
        # What a node itself has started: a replay server.
        return f"{parent}'s child" if name == "other" and parent != LAUNCHER else name


def train(
    config: str,
    workdir: pathlib.Path,
    overrides: Mapping[str, Any],
    *,
    launch: str,
    env: Mapping[str, str] | None = None,
) -> TrainingRun:
    """Runs one training to its end; see `Training` and `Training.watch`."""
    with Training(config, workdir, overrides, launch=launch, env=env) as training:
        return training.watch()


def compiled_in(folder: pathlib.Path) -> dict[str, str]:
    """The variables that make JAX keep in a folder what it compiles, for runs of the same models."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
    }


def demo_reference(folder: pathlib.Path, overrides: Mapping[str, Any] | None = None) -> pathlib.Path:
    """Trains a reference for the demo for a few updates; returns its run directory.

    What it has learned makes no difference to times.
    """
    few = {"steps": 5, "warmup_steps": 1, "evaluation.every": 10, **(overrides or {})}
    return train(f"{DEMO}:reference", folder / "reference", few, launch="synchronous").workdir


def node_name(command: Sequence[str]) -> str:
    """The node that a process runs, by its command line; "other" for any other process."""
    files = [found[1] for part in command if (found := _TASK_FILE.search(part))]
    indices = [found[1] for part in command if (found := _TASK_INDEX.search(part))]
    if not files:
        return "other"
    return files[0] if indices in ([], ["0"]) else f"{files[0]}-{indices[0]}"


def sleep_until(moment: float) -> None:
    """Lets a time pass that is itself part of a measurement; `moment` of the monotonic clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Blocks until something is so.

    Raises:
        TimeoutError: if it is not after so many seconds; says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not seen in {seconds} s")
        sleep_until(time.monotonic() + 0.1)


class _StepReader:
    """Follows a metrics file that may not exist yet."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._offset = 0

    def newest(self) -> int | None:
        """The step of the newest line since the last call; None without a new one."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return None
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else None
