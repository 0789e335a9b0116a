"""`classact setup`: makes what this Python cannot install itself; `make env` ends with it.

That is the replay server's Python with Reverb and TensorFlow, and Launchpad's files; see
`environments.py`. All packages come from locks with hashes. Done again it changes nothing;
interrupted, it begins anew.
"""

import contextlib
import fcntl
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import uv
from absl import flags

from classact import environments
from classact.launch.commands import arguments, terminal
from classact.replay import server_process

USAGE = """\
  setup     [--folder=DIR] [--python=PYTHON]
            makes the replay server's environment and unpacks Launchpad: once, after an
            installation; packages come from where uv is told, or PIP_INDEX_URL says
"""

# The Pythons for which Reverb has a wheel, the best first.
REPLAY_PYTHONS = ("3.11", "3.10")
# What uv says when it had no connection.
_NO_NETWORK = ("error sending request", "dns error", "Failed to fetch", "network connectivity")


class SetupError(Exception):
    """A part could not be made; one line says why, and what to do."""


def main(argv: Sequence[str]) -> int:
    """Makes both parts; see `cli.main`."""
    folder = flags.DEFINE_string(
        "folder",
        None,
        f"Where to put them; later commands find them if {environments.FOLDER_VARIABLE} says so.",
    )
    python = flags.DEFINE_string(
        "python", None, f"The Python {' or '.join(REPLAY_PYTHONS)} to take; else it is looked for."
    )
    arguments.parse_all(argv)
    if python.value:
        _check_python(python.value)
    try:
        place = set_up(python.value, folder.value)
    except SetupError as error:
        terminal.complain(str(error))
        return 1
    terminal.say_first([f"the replay server's Python and Launchpad's files are in {place}"])
    if folder.value:
        terminal.say_first([f"set {environments.FOLDER_VARIABLE}={place} for all later commands"])
    return 0


def set_up(python: str | None = None, folder: str | None = None) -> pathlib.Path:
    """Makes what is missing; waits while another process does.

    Args:
        python: name or path of the Python for the replay's server; None: the best that is found.
        folder: where to put them; None: the first of `environments.folders` that can be written.

    Returns:
        The folder that has both parts.

    Raises:
        SetupError: if that cannot be done.
    """
    places = [pathlib.Path(folder).absolute()] if folder else environments.folders()
    for place in places:
        if all(environments.is_whole(part, place) for part in (environments.LAUNCHPAD, environments.REPLAY)):
            return place
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"the replay's server runs on Linux on x86-64, this is {sys.platform} on {platform.machine()}"
        )
    place = _writable(places)
    with _only_one(place) as lock:
        # Another may have made them meanwhile.
        if not environments.is_whole(environments.LAUNCHPAD, place):
            _unpack_launchpad(place, lock)
        if not environments.is_whole(environments.REPLAY, place):
            _make_replay(place, python, lock)
    return place


def _unpack_launchpad(folder: pathlib.Path, lock: int) -> None:
    part = environments.LAUNCHPAD
    place = _emptied(folder, part)
    _uv(
        part.what,
        *("pip", "install", "--python", sys.executable, "--target", str(place), "--no-deps"),
        # What is unpacked is Python for any version; the wheel says that it is for this one.
        *("--python-version", "3.10", "--python-platform", "x86_64-manylinux2014"),
        *("--require-hashes", "--requirements", str(part.lock_file)),
        lock=lock,
    )
    environments.mark_whole(part, folder)


def _make_replay(folder: pathlib.Path, python: str | None, lock: int) -> None:
    part = environments.REPLAY
    base = (shutil.which(python) or python) if python else _base_python(lock)
    place = _emptied(folder, part)
    terminal.say_first([f"making the replay server's environment in {place}: a minute, and 1.4 GB of disk"])
    _uv(part.what, "venv", "--no-project", "--python", base, str(place), lock=lock)
    made = str(place / part.use)
    _uv(
        part.what,
        *("pip", "install", "--compile-bytecode", "--python", made),
        *("--require-hashes", "--requirements", str(part.lock_file)),
        lock=lock,
    )
    # A processor or a C library that TensorFlow was not built for shows only now.
    command = server_process.check_command(place / part.use)
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode:
        print(tried.stderr, file=sys.stderr)
        raise SetupError(f"{part.what} was made, but Reverb does not load there: {_last_line(tried)}")
    environments.mark_whole(part, folder)


def _base_python(lock: int) -> str:
    """A Python for the replay's server: one that is here, else the version that uv shall fetch."""
    for version in REPLAY_PYTHONS:
        command = [
            uv.find_uv_bin(),
            "python",
            "find",
            "--quiet",
            "--system",
            "--no-python-downloads",
            version,
        ]
        found = subprocess.run(command, capture_output=True, text=True, env=uv_variables())
        if found.returncode == 0:
            return found.stdout.strip()
    terminal.say_first([f"no Python {' or '.join(REPLAY_PYTHONS)} is here: fetching one"])
    _uv(f"a Python {REPLAY_PYTHONS[0]}", "python", "install", REPLAY_PYTHONS[0], lock=lock)
    return REPLAY_PYTHONS[0]


def _check_python(python: str) -> None:
    """Checks a Python that the user has named.

    Raises:
        UsageError: if it is none, or of a version for which there is no Reverb.
    """
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise arguments.UsageError(f"--python={python}: cannot be run ({error})") from None
    if version not in REPLAY_PYTHONS:
        accepted = " or ".join(REPLAY_PYTHONS)
        raise arguments.UsageError(f"--python={python}: is Python {version}, Reverb needs {accepted}")


def _uv(what: str, *command: str, lock: int) -> None:
    """Runs uv.

    Raises:
        SetupError: if it fails; what it said is printed.
    """
    # uv holds the lock too: if this process alone is killed, nobody begins before uv has ended.
    done = subprocess.run(
        [uv.find_uv_bin(), *command], capture_output=True, text=True, env=uv_variables(), pass_fds=[lock]
    )
    if done.returncode == 0:
        return
    print(done.stderr, end="", file=sys.stderr)
    if any(words in done.stderr for words in _NO_NETWORK):
        advice = (
            "nothing could be fetched. Behind a mirror, name it by UV_DEFAULT_INDEX or PIP_INDEX_URL; "
            "without any network, copy the folder from an equal machine to the same path "
            f"({environments.FOLDER_VARIABLE} names it)"
        )
        if command[0] == "python":
            advice = "none could be fetched; install one, or name one by --python=PYTHON"
        raise SetupError(f"{what}: {advice}")
    raise SetupError(f"{what} cannot be made: uv {command[0]} says: {_last_line(done)}")


def uv_variables() -> Mapping[str, str]:
    """The environment in which uv runs: it is told what pip is told, and finds all of pyenv's Pythons."""
    variables = dict(os.environ)
    # Those that a proxy may need; harmless elsewhere.
    variables.setdefault("UV_SYSTEM_CERTS", "1")
    of_pip = variables.get("PIP_INDEX_URL")
    if of_pip and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX"} & variables.keys():
        variables["UV_DEFAULT_INDEX"] = of_pip
    more = variables.get("PIP_EXTRA_INDEX_URL")
    if more and not {"UV_INDEX", "UV_EXTRA_INDEX_URL"} & variables.keys():
        variables["UV_INDEX"] = more
        # As pip does: any index may have it. Hashes say that it is the right file.
        variables.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    pyenv = pathlib.Path(variables.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    # Its shims answer only for the versions that are switched on.
    folders = sorted(str(folder) for folder in pyenv.glob("versions/3.1*/bin"))
    variables["PATH"] = os.pathsep.join([variables.get("PATH", os.defpath), *folders])
    return variables


def _writable(folders: Sequence[pathlib.Path]) -> pathlib.Path:
    """The first folder that can be made and written.

    Raises:
        SetupError: if there is none.
    """
    reason = ""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"{folder}: {error.strerror}"
            continue
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{folder}: not writable"
    raise SetupError(f"no folder for the environments can be written ({reason}): name one by --folder=DIR")


@contextlib.contextmanager
def _only_one(folder: pathlib.Path) -> Iterator[int]:
    """Keeps other processes from making parts in a folder meanwhile; gives the lock's descriptor."""
    try:
        file = open(folder / ".lock", "w")  # noqa: SIM115 - closed below.
    except OSError as error:
        raise SetupError(f"{folder}: {error.strerror}; name another folder by --folder") from None
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            terminal.say_first([f"another `classact setup` is at work in {folder}: waiting for it"])
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _emptied(folder: pathlib.Path, part: environments.Part) -> pathlib.Path:
    """The folder of a part, without what an interruption or an older version left."""
    place = folder / part.name
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    return place


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    # Such as by a signal: an instruction that the processor does not have.
    return lines[-1].strip() if lines else f"it ended with status {done.returncode}"
