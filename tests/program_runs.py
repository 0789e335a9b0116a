"""Whole programs started through the command line, as users do; for the tests of whole programs."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil

from classact.nodes import checkpoints

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "experiments" / "configs" / "classification.py"
SMALL = [
    "--config.train_data=digits",
    "--config.patch_size=4",
    "--config.learner.model=vit_mu_1_1",
    "--config.scorer.model=vit_mu_1_1",
    "--config.batch_size=32",
    "--config.steps=60",
    "--config.log_every=10",
    "--config.evaluation.every=20",
    "--config.label_noise=0.2",
]
CLASSACT = [sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()"]


def command(workdir, *arguments, config=CONFIG, fields=SMALL):
    return [
        *CLASSACT,
        "train",
        f"--config={config}",
        f"--workdir={workdir}",
        *fields,
        *arguments,
    ]


def environment(folder):
    return {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}


def train(folder, name, *arguments, timeout=240, **options):
    return subprocess.run(
        command(folder / name, *arguments, **options),
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start(folder, name, *arguments):
    log = (folder / f"{name}.out").open("w")
    return subprocess.Popen(
        command(folder / name, *arguments), env=environment(folder), cwd=folder, stdout=log, stderr=log
    )


def start_hosts(folder, name, *arguments):
    """A learner on two hosts of two devices each, without scores: the learner is what differs."""
    flags = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    fields = ["--config.mesh.hosts=2", "--launch=processes", *arguments]
    with (folder / f"{name}.out").open("w") as log:
        return subprocess.Popen(
            command(folder / name, *fields),
            env={**environment(folder), **flags},
            cwd=folder,
            stdout=log,
            stderr=log,
        )


def start_evaluator(folder, name, *arguments):
    log = (folder / f"{name}.evaluators.out").open("a")
    arguments = [*CLASSACT, "evaluate", f"--workdir={folder / name}", *arguments]
    return subprocess.Popen(arguments, env=environment(folder), cwd=folder, stdout=log, stderr=log)


def start_actors(folder, name, *arguments):
    """Returns the command that adds actors, and the file that it prints to."""
    path = folder / f"{name}.actors-{len(list(folder.glob(f'{name}.actors-*')))}.out"
    command = [*CLASSACT, "actors", f"--workdir={folder / name}", *arguments]
    with path.open("w") as log:
        made = subprocess.Popen(command, env=environment(folder), cwd=folder, stdout=log, stderr=log)
    return made, path


def result_of(folder, name):
    return json.loads((folder / name / "result.json").read_text())


def lines_of(folder, name, node):
    return [
        json.loads(line) for line in (folder / name / "metrics" / f"{node}.jsonl").read_text().splitlines()
    ]


def processes_of(folder):
    """The live processes whose command line names this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and str(folder) in " ".join(process.cmdline()):
                found.append(process)
    return found


def nodes_of(folder):
    """The process number of each node of a run, by what it reads: one file a group."""
    found = {}
    for process in processes_of(folder):
        with contextlib.suppress(psutil.Error):  # It may have ended just now.
            for argument in process.cmdline():
                if argument.startswith("--data_file="):
                    found[pathlib.Path(argument).stem] = process.pid
    return found


def hang_every_node(workdir, process, output):
    """Stops all nodes of a run at once, as a debugger or a virtual machine would; waits until it goes on.

    Returns:
        The nodes' names. Each is another process now, and the learner has saved a state that
        it had not when it was stopped.
    """
    directory = workdir / "checkpoints"
    wait_until(lambda: (checkpoints.latest_step(directory) or 0) >= 50, process, output)
    stopped = nodes_of(workdir)
    for pid in stopped.values():
        os.kill(pid, signal.SIGSTOP)
    before = checkpoints.latest_step(directory)
    wait_until(lambda: set(nodes_of(workdir)) == set(stopped), process, output)
    wait_until(lambda: not set(nodes_of(workdir).values()) & set(stopped.values()), process, output)
    wait_until(lambda: checkpoints.latest_step(directory) > before, process, output)
    return set(stopped)


def wait_until(condition, process, output, seconds=200):
    """Waits until `condition()` while a process runs that prints to the file `output`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)


def wait_for_line(folder, name, process, seconds=200, node="learner"):
    """Waits until a node has written a line of metrics."""
    path = folder / name / "metrics" / f"{node}.jsonl"
    wait_until(lambda: path.exists() and path.read_text(), process, folder / f"{name}.out", seconds)
