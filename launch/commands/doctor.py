"""`classact doctor`: what of classact's needs is here, where, and what to do about the rest."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures

import psutil
import uv

from classact import environments
from classact.launch.commands import arguments
from classact.launch.engines import isolation, ports, sockets
from classact.launch.engines.outcome import LaunchError
from classact.replay import server_process, unix_listener

USAGE = """\
  doctor    says what a run needs and what of it is here, where, and what to do about the rest;
            status 0 if a run on this machine can work
"""

_MAIN = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "dm-haiku",
    "orbax-checkpoint",
    "numpy",
    "protobuf",
    "grpcio",
    "pyzmq",
)
_REPLAY = ("dm-reverb", "tensorflow-cpu", "numpy", "protobuf")
# Whatever hangs in a driver or on a network disk must not hang this too.
_ANSWER_SECONDS = 120.0
_VERSIONS = """
import importlib.metadata, json, sys
def version(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return None
print(json.dumps([sys.version.split()[0], {name: version(name) for name in sys.argv[1:]}]))
"""
_DEVICES = """
import json, jax
print(json.dumps([[device.platform, device.device_kind] for device in jax.local_devices()]))
"""
_LAUNCHPAD = "from classact.launch.assembly.launchpad import lp; lp.Program('doctor')"
_SLURM = ("sbatch", "srun", "scontrol", "squeue", "scancel")
_LEAST_MEMORY_GB, _LEAST_DISK_GB = 4, 2


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        group: of things, under whose heading it is shown.
        good: whether it is as it must be; None: nothing needs it.
        text: what was found.
        advice: what to do about it; "" if nothing.
    """

    group: str
    good: bool | None
    text: str
    advice: str = ""


def main(argv: Sequence[str]) -> int:
    """Prints all findings; see `cli.main`."""
    arguments.parse_all(argv)
    group, bad = "", False
    for finding in examine():
        if finding.group != group:
            group = finding.group
            print(group)
        word = {True: "ok", False: "BAD", None: "-"}[finding.good]
        print(f"  {word:<4}{finding.text}", flush=True)
        if finding.advice:
            print(f"      → {finding.advice}", flush=True)
        bad |= finding.good is False
    print("\nA run on this machine " + ("cannot work: see BAD above." if bad else "can work."))
    return int(bad)


def examine() -> Iterator[Finding]:
    """Looks for everything; what takes seconds is asked of other processes, all at once.

    Yields:
        Findings, group by group. Nothing is changed; two minutes at most.
    """
    with futures.ThreadPoolExecutor() as asked:
        looks = (main_environment, replay_server, launchpad, devices, network, launches, machine)
        for group in [asked.submit(_all_of, look) for look in looks]:
            yield from group.result()


def _all_of(look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    return list(look())


def main_environment() -> Iterator[Finding]:
    """This Python, and whether what classact needs of it is there in fitting versions."""
    group = "main environment"
    yield Finding(group, True, f"Python {platform.python_version()}, {sys.executable}")
    versions: dict[str, str | None] = dict.fromkeys(_MAIN)
    for name in _MAIN:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    yield Finding(group, None, _listed(versions))
    # Other packages' quarrels are the user's own affair.
    checked = subprocess.run(
        [uv.find_uv_bin(), "pip", "check", "--python", sys.executable], capture_output=True, text=True
    )
    wrong = [line for line in checked.stderr.splitlines() if line.startswith("The package `classact`")]
    for line in wrong:
        yield Finding(group, False, line, "pip install --upgrade classact")


def replay_server() -> Iterator[Finding]:
    """The Python of the replay's server, and whether Reverb loads there."""
    group = "replay server's environment"
    try:
        python = environments.replay_python()
    except environments.EnvironmentMissingError as error:
        yield Finding(group, False, str(error), "classact setup")
        return
    answer = _answer([str(python), "-c", _VERSIONS, *_REPLAY])
    failure = answer.error
    if not failure:
        version, packages = json.loads(answer.said[0])
        failure = _answer(server_process.check_command(python)).error
        yield Finding(group, not failure, f"Python {version}, {python}")
        yield Finding(group, None, _listed(packages))
    if failure:
        advice = f"remove {python.parent.parent}, then: classact setup"
        yield Finding(group, False, f"Reverb does not load: {failure}", advice)


def launchpad() -> Iterator[Finding]:
    """Launchpad's files, and whether they load here."""
    group = "Launchpad's files"
    try:
        folder = environments.launchpad_folder()
    except environments.EnvironmentMissingError as error:
        yield Finding(group, False, str(error), "classact setup")
        return
    wheels = [path.name for path in folder.glob("*launchpad*.dist-info")]
    versions = [name.removesuffix(".dist-info").replace("-", " ").replace("_", "-") for name in wheels]
    answer = _answer([sys.executable, "-c", _LAUNCHPAD])
    if answer.error:
        advice = f"remove {folder}, then: classact setup"
        yield Finding(group, False, f"they do not load from {folder}: {answer.error}", advice)
    else:
        yield Finding(group, True, f"{' '.join(versions) or 'of unknown version'}, {folder}")


def devices() -> Iterator[Finding]:
    """What JAX computes on, and which GPUs there are."""
    group = "devices"
    answer = _answer([sys.executable, "-c", _DEVICES], XLA_PYTHON_CLIENT_PREALLOCATE="false")
    if answer.error:
        advice = "see what `python -c 'import jax; jax.devices()'` says; JAX_PLATFORMS=cpu does without"
        yield Finding(group, False, f"JAX finds none: {answer.error}", advice)
        return
    found = json.loads(answer.said[-1])
    kinds = [tuple(device) for device in found]
    for platform_name, kind in dict.fromkeys(kinds):
        count = kinds.count((platform_name, kind))
        yield Finding(group, True, f"JAX computes on {count} × {platform_name} ({kind})")
    # Not above: it imports JAX, which may be what is broken.
    from classact.launch.assembly import gpu_advice

    for line in gpu_advice.lines():
        yield Finding(group, None, line)


def network() -> Iterator[Finding]:
    """Unix sockets, ports, and whether `--isolate` works."""
    group = "ports and sockets"
    try:
        with sockets.PrivateSockets() as addresses, socket.socket(socket.AF_UNIX) as own:
            address = addresses("doctor").removeprefix("unix:")
            own.bind(address)
        yield Finding(group, True, f"Unix sockets in a private folder, such as {address}")
    except (LaunchError, OSError) as error:
        advice = "name another, short folder for temporary files by TMPDIR"
        yield Finding(group, False, f"no Unix socket can be made: {error}", advice)
    if unix_listener.is_possible():
        yield Finding(group, True, "the replay's server can be taken off the network")
    else:
        advice = "a run needs a kernel that shows in /proc/self/fdinfo what epoll watches, as Linux does"
        yield Finding(group, False, "the replay's server cannot be taken off the network", advice)
    try:
        port = ports.free_ports(1)[0]
        yield Finding(group, True, f"free ports for launches over several hosts, such as {port}")
    except LaunchError as error:
        yield Finding(group, False, str(error))
    tried = _answer([sys.executable, "-I", "-S", isolation.__file__, "/bin/true"])
    allowed = "this user can have a network of their own: --isolate works"
    text = (
        f"no network of this user's own: --isolate does not work ({tried.error})" if tried.error else allowed
    )
    yield Finding(group, None, text)


def launches() -> Iterator[Finding]:
    """Where a run could be started: of clusters, what is here of their commands."""
    group = "launches"
    yield Finding(group, None, "processes, threads, synchronous: on this machine")
    absent = [command for command in _SLURM if shutil.which(command) is None]
    if absent:
        advice = "for --launch=slurm: start on a machine of a Slurm cluster"
        yield Finding(group, None, f"slurm: not here ({', '.join(absent)} not on PATH)", advice)
    else:
        answer = _answer(["sinfo", "--noheader", "--format=partition %P: %D hosts %t"], seconds=20)
        advice = (
            "for --launch=slurm: its commands are here, but no controller answers" if answer.error else ""
        )
        said = answer.error or "; ".join(answer.said) or "no partition"
        yield Finding(group, None, f"slurm: {said}", advice)
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(group, None, "ray: not installed", "for --launch=ray: pip install 'classact[ray]'")
        return
    address = os.environ.get("RAY_ADDRESS")
    where = f"RAY_ADDRESS={address}" if address else "RAY_ADDRESS is not set: the cluster of this machine"
    yield Finding(group, None, f"ray: {version}; {where}")


def machine() -> Iterator[Finding]:
    """CPUs, memory and disk."""
    group = "machine"
    memory = psutil.virtual_memory()
    free, total = memory.available / 1e9, memory.total / 1e9
    cpus = len(os.sched_getaffinity(0))
    low = free < _LEAST_MEMORY_GB
    yield Finding(
        group,
        None if low else True,
        f"{cpus} CPUs; {free:.0f} of {total:.0f} GB of memory are free",
        f"a small run takes about 2 GB, the default replay more: below {_LEAST_MEMORY_GB} GB watch it"
        if low
        else "",
    )
    for what, place in (("this folder", os.getcwd()), ("temporary files", tempfile.gettempdir())):
        space = shutil.disk_usage(place).free / 1e9
        few = space < _LEAST_DISK_GB
        advice = "checkpoints and saved replays need room" if few else ""
        yield Finding(
            group, None if few else True, f"{space:.0f} GB of disk are free for {what} ({place})", advice
        )


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What a command said.

    Attributes:
        said: the lines that it printed.
        error: why it failed; "" if it did not.
    """

    said: list[str]
    error: str = ""


def _answer(command: Sequence[str], seconds: float = _ANSWER_SECONDS, **variables: str) -> _Answer:
    # Of errors alone.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Answer([], f"no answer within {seconds:.0f} s")
    except OSError as error:
        return _Answer([], f"{command[0]}: {error.strerror}")
    lines = done.stderr.strip().splitlines()
    ended = f"status {done.returncode}"
    failure = (lines[-1].strip() if lines else ended) if done.returncode else ""
    return _Answer(done.stdout.splitlines(), failure)


def _listed(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())
