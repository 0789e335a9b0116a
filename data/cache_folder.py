"""Where this machine keeps what is made of data once, or fetched: below one folder."""

import os
import pathlib

# The environment variable that names the folder, and the folder without it.
VARIABLE = "CLASSACT_DATA"
DEFAULT = "~/.cache/classact"


def as_named() -> str:
    """The folder as the user wrote it, `$CLASSACT_DATA`, or `~/.cache/classact`."""
    return os.environ.get(VARIABLE) or DEFAULT


def cache_folder(name: str = "") -> pathlib.Path:
    """The folder, or one in it; it need not be there."""
    return pathlib.Path(as_named()).expanduser() / name
