"""Where the parts are that this Python cannot install: Launchpad's files, the replay server's Python.

`classact setup` (and `make env`) puts both under `<sys.prefix>/classact`, or, where nobody may
write there, into the user's own folder; environment variables name other places.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import sys

FOLDER_VARIABLE = "CLASSACT_ENVIRONMENTS"
# Holds the digest of the lock from which a part was made, and is written last: a part
# that was interrupted, or that an older version of this package made, is none.
_MARK = ".made-from"
_PACKAGE = pathlib.Path(__file__).resolve().parent


class EnvironmentMissingError(RuntimeError):
    """A part is not there; says which command makes it."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the two.

    Attributes:
        name: of its folder.
        what: it is called in a sentence.
        variable: of the environment, which names one that is made by other means.
        lock: the file, below the package, from which it is made: packages with hashes.
        use: what users of the part want, below its folder.
    """

    name: str
    what: str
    variable: str
    lock: str
    use: str

    @property
    def lock_file(self) -> pathlib.Path:
        """The lock, as it came with this package."""
        return _PACKAGE / self.lock


LAUNCHPAD = Part(
    "launchpad", "Launchpad's files", "CLASSACT_LAUNCHPAD", "launch/assembly/launchpad.lock", "."
)
REPLAY = Part(
    "replay",
    "the replay server's Python",
    "CLASSACT_REPLAY_PYTHON",
    "replay/requirements.lock",
    "bin/python",
)


def launchpad_folder() -> pathlib.Path:
    """The folder in which Launchpad's wheel was unpacked.

    Raises:
        EnvironmentMissingError: if it is not there.
    """
    return _found(LAUNCHPAD)


def replay_python() -> pathlib.Path:
    """The Python that has Reverb, and runs the replay's server.

    Raises:
        EnvironmentMissingError: if it is not there.
    """
    return _found(REPLAY)


def folders() -> list[pathlib.Path]:
    """Where the parts are looked for, and made: the first of these that can be written."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return [pathlib.Path(named).absolute()]
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return [pathlib.Path(sys.prefix) / "classact", pathlib.Path(data) / "classact"]


def versions() -> dict[str, str]:
    """Versions of Launchpad, Reverb and TensorFlow, as far as they are here; nothing is started."""
    found = {}
    for part, names in ((LAUNCHPAD, ("dm-launchpad",)), (REPLAY, ("dm-reverb", "tensorflow-cpu"))):
        try:
            use = _found(part)
        except EnvironmentMissingError:
            continue
        # Of a Python, where its packages are.
        paths = [use] if part is LAUNCHPAD else [*use.parent.parent.glob("lib/python3*/site-packages")]
        for name in names:
            for package in importlib.metadata.distributions(name=name, path=[*map(str, paths)]):
                found[name] = package.version
    return found


def is_whole(part: Part, folder: pathlib.Path) -> bool:
    """Whether a folder has a part that was made to its end, from this package's lock."""
    try:
        mark = (folder / part.name / _MARK).read_text()
    except OSError:
        return False
    return mark == _digest(part.lock_file) and (folder / part.name / part.use).exists()


def mark_whole(part: Part, folder: pathlib.Path) -> None:
    """Says that a part was made to its end."""
    (folder / part.name / _MARK).write_text(_digest(part.lock_file))


def _found(part: Part) -> pathlib.Path:
    named = os.environ.get(part.variable)
    if named:
        if not os.path.exists(named):
            raise EnvironmentMissingError(f"{part.variable}={named}: {part.what} is not there")
        return pathlib.Path(named)
    places = [folder / part.name for folder in folders()]
    for place in places:
        if is_whole(part, place.parent):
            return place / part.use
    there = [str(place) for place in places if place.exists()]
    state = f"{there[0]} is unfinished or of another version" if there else f"nothing is at {places[0]}"
    raise EnvironmentMissingError(
        f"{part.what}: {state}; run `classact setup`, or name the place by {part.variable}"
    )


@functools.cache
def _digest(lock: pathlib.Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()
