"""The command line: the table of commands. Each is a module of this folder.

A command's module has `USAGE`, its lines in `classact --help`, which begin with its
name after two spaces, and `main(argv) -> int`: it takes "classact COMMAND" and the
arguments, defines its flags, and returns the exit status: 0 the goal is reached, 1 it
is not, 2 bad input. It may have `MORE_HELP`, paragraphs at the end of its `--help`. It
imports what takes long in `main`, so that the other commands do not wait for it.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from classact import environments, user_code
from classact.launch.commands import command_help, terminal
from classact.launch.commands.arguments import UsageError

COMMANDS = (
    "train",
    "serve",
    "evaluate",
    "actors",
    "status",
    "logs",
    "compare",
    "sweep",
    "plan",
    "score",
    "inspect",
    "export",
    "data",
    "setup",
    "doctor",
)


def entry_point() -> None:
    """Runs `classact` and exits: 0 the goal is reached, 2 bad input, 1 anything else."""
    user_code.use_working_directory()
    exit_with(main(sys.argv))


def exit_with(status: int) -> NoReturn:
    """Ends this process now."""
    sys.stdout.flush()
    sys.stderr.flush()
    # A node's thread that did not stop, or a C++ thread of gRPC or XLA,
    # must not hold up a process whose work is done and written.
    os._exit(status)


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
        argv: the program's name, the command, its arguments.

    Returns:
        The exit status.
    """
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(usage(), end="", file=sys.stderr if len(argv) < 2 else sys.stdout)
        return 2 if len(argv) < 2 else 0
    name = argv[1]
    if name not in COMMANDS:
        return terminal.complain(f"unknown command {name!r}: expected one of {', '.join(COMMANDS)}")
    command = _module(name)
    try:
        return int(command.main([f"{argv[0]} {name}", *argv[2:]]))
    except command_help.HelpAsked:
        more = getattr(command, "MORE_HELP", "")
        print(command_help.of_command(command.USAGE, command.__name__, more), end="")
        return 0
    except (UsageError, environments.EnvironmentMissingError) as error:
        return terminal.complain(str(error))
    # Before there are nodes to stop, or after.
    except KeyboardInterrupt:
        print("classact: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def usage() -> str:
    """What `classact --help` prints."""
    commands = "".join(_module(name).USAGE for name in COMMANDS)
    return f"{command_help.HEADER}\n\n{commands}\nOptions of a command: classact COMMAND --help\n"


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"classact.launch.commands.{command}")
