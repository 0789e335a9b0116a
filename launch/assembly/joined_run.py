"""A run as those see it who join it from outside, by what is in its directory.

`config.json` says which model is trained on what, `endpoints.json` where the learner is,
`result.json` that the run is over.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from classact import user_code
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.experiments.resolution import resolve
from classact.launch.engines import isolation
from classact.nodes import errors

# How long the learner may be silent before it counts as gone: longer than one that hangs is left alone
# (`hung_seconds`, 120 by default) and takes to start again.
SILENT_SECONDS = 180.0


class AttachError(ValueError):
    """A directory that holds no experiment to join, or one that cannot be reached."""


class EndedError(RuntimeError):
    """The experiment has ended, or this process was asked to stop."""


def silence(workdir: pathlib.Path) -> str:
    """What is said of an experiment whose learner is gone."""
    return f"{workdir}: the learner did not answer for {SILENT_SECONDS:.0f} s, and the run has no result.json"


def has_ended(workdir: pathlib.Path) -> bool:
    """Whether a run has its result."""
    return (workdir / "result.json").exists()


def check_network(workdir: pathlib.Path, fields: Mapping[str, Any]) -> None:
    """Checks that this process is in the network of a run that was given one of its own.

    Args:
        workdir: the run directory.
        fields: of its `config.json`.

    Raises:
        AttachError: if it is not; it has the command that is.
    """
    started = fields.get("started")
    if not isinstance(started, dict) or started.get("isolated") is None:
        return
    try:
        command = isolation.way_in(started["isolated"])
    except (KeyError, TypeError, ValueError):
        raise AttachError(f"{workdir / 'config.json'} is of another version of classact") from None
    if command:
        raise AttachError(
            f"{workdir}: the run was started with --isolate, and is reached from its own network alone: "
            f"on {started.get('host')}, put {command} before the command"
        )


def read_fields(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads all that a run's `config.json` holds.

    Raises:
        AttachError: if the directory is no run's.
    """
    path = workdir / "config.json"
    try:
        fields = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise AttachError(
            f"workdir={str(workdir)!r} is no run directory: it has no config.json, "
            "which `classact train` writes"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise AttachError(f"{path} cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise AttachError(f"{path} is no run's configuration: name the --workdir of a `classact train`")
    return fields


def read_config(workdir: pathlib.Path) -> ExperimentConfig:
    """Reads the configuration of a run.

    Raises:
        AttachError: if the directory is no run's, or one of another version, or if it names code
            of the user's that is not here.
    """
    fields = read_fields(workdir)
    known = {field.name for field in dataclasses.fields(ExperimentConfig)}
    # Retired: it changed nothing but the rounding of older versions.
    if isinstance(fields.get("data_sets"), dict):
        for data_set in fields["data_sets"].values():
            data_set.pop("score_shift", None)
    try:
        return resolve({name: value for name, value in fields.items() if name in known})
    except ConfigError as error:
        if any(isinstance(behind, user_code.UserCodeError) for behind in errors.chain(error)):
            started = fields.get("started")
            directory = started.get("directory") if isinstance(started, dict) else None
            raise AttachError(f"{workdir}: {error}{elsewhere(directory)}") from None
        raise AttachError(f"{workdir / 'config.json'} is of another version of classact: {error}") from None


def elsewhere(directory: str | None) -> str:
    """What is added to an error that may come of where this process was started, and not the experiment."""
    known = directory is not None and directory != os.getcwd()
    return f"; the experiment was started in {directory}" if known else ""
