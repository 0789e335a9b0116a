"""Where the parts are that this Python cannot install: Launchpad's files, the replay server's Python.

`classact setup` (and `make env`) puts both under `<sys.prefix>/classact`; an environment
variable names another place.
"""

import os
import pathlib
import sys

LAUNCHPAD_VARIABLE = "CLASSACT_LAUNCHPAD"
REPLAY_VARIABLE = "CLASSACT_REPLAY_PYTHON"
HOME = pathlib.Path(sys.prefix) / "classact"


class EnvironmentMissingError(RuntimeError):
    """A part is not there; says which command makes it."""


def launchpad_folder() -> pathlib.Path:
    """The folder in which Launchpad's wheel was unpacked.

    Raises:
        EnvironmentMissingError: if it is not there.
    """
    folder = pathlib.Path(os.environ.get(LAUNCHPAD_VARIABLE) or HOME / "launchpad")
    return _existing(folder, folder / "launchpad" / "__init__.py", "Launchpad's files", LAUNCHPAD_VARIABLE)


def replay_python() -> pathlib.Path:
    """The Python that has Reverb, and runs the replay's server.

    Raises:
        EnvironmentMissingError: if it is not there.
    """
    python = pathlib.Path(os.environ.get(REPLAY_VARIABLE) or HOME / "replay" / "bin" / "python")
    return _existing(python, python, "the replay server's Python", REPLAY_VARIABLE)


def _existing(found: pathlib.Path, proof: pathlib.Path, what: str, variable: str) -> pathlib.Path:
    if not proof.exists():
        raise EnvironmentMissingError(
            f"{what} is not at {found}: run `classact setup`, or name its place by {variable}"
        )
    return found
