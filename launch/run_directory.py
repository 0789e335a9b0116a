"""The directory in which a run leaves its files: whether it can be made, and making it."""

import os
import pathlib

from classact.experiments.config import ConfigError
from classact.launch.outcome import LaunchError


def check(workdir: pathlib.Path) -> None:
    """Checks, without writing, that a run could leave its files there.

    What only an attempt can show (`/proc`, which says that it can be written) `make` finds.

    Raises:
        ConfigError: if it, or what it would be made in, is no directory or cannot be written.
    """
    field = f"workdir={str(workdir)!r}"
    try:
        os.lstat(workdir)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field} cannot be used ({_reason(error)}): name another one") from None
    nearest = next(path for path in (workdir, *workdir.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        what = "is not a directory" if nearest == workdir else f"cannot be made: {nearest} is not a directory"
        raise ConfigError(f"{field} {what}; name another one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{field}: {nearest} cannot be written: name another one")


def make(directory: pathlib.Path) -> None:
    """Makes a run's directory, or one in it, with those that it is in.

    Raises:
        LaunchError: if it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(
            f"workdir: {directory} cannot be made ({_reason(error)}): name another one"
        ) from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
