"""Runs a configuration that an engine has saved, where that engine wants it: in a Slurm job, for instance.

    python -m classact.launch.commands.submitted CONFIG.json WORKDIR ENGINE

ends with the exit status of `classact train`.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from classact import user_code
from classact.launch.commands import cli, terminal
from classact.launch.commands.arguments import UsageError
from classact.launch.commands.train import train


def main(arguments: Sequence[str]) -> int:
    """Runs the experiment; returns the exit status.

    Args:
        arguments: the configuration's file, the run directory and the engine's name.
    """
    file, workdir, engine = arguments
    try:
        return train(json.loads(pathlib.Path(file).read_text()), pathlib.Path(workdir), engine)
    except UsageError as error:
        return terminal.complain(str(error))


if __name__ == "__main__":
    user_code.use_working_directory()
    cli.exit_with(main(sys.argv[1:]))
