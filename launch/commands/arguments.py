"""What a command makes of its arguments: flags, and one line about what is wrong with them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from classact.launch.commands import command_help

if TYPE_CHECKING:
    from classact.launch.engines.interface import Engine

# What Python says of a word that is no value of a flag's type.
_NO_VALUE = (
    (r"invalid literal for int\(\) with base 10: .*", "expected a whole number"),
    (r"could not convert string to float: .*", "expected a number"),
    (r"\('Non-boolean argument to boolean flag', .*\)", "expected true or false"),
    (r"Failed to parse .* as a ConfigDict: .*", "expected a dict, such as \"{'name': 1}\""),
)


class UsageError(Exception):
    """What the user typed cannot be run; one line says why."""


def parse(argv: Sequence[str], config: ConfigDict | None = None) -> list[str]:
    """Parses the flags that a command has defined, and those that set a configuration's fields.

    Args:
        argv: the command's name and its arguments.
        config: whose fields may be set by `--config.FIELD=VALUE`; None: there is none.

    Returns:
        The arguments that are no flags.

    Raises:
        UsageError: for an unknown flag, or a value of another type.
        command_help.HelpAsked: if help is asked for.
    """
    command_help.check(argv[1:])
    try:
        if config is not None:
            config_flags.DEFINE_config_dict("config", config, "Configuration file.", sys_argv=list(argv))
        return flags.FLAGS(list(argv))[1:]
    # Of many kinds, if a value is of another type; to the user all of them are one
    # line about a flag.
    except Exception as error:
        said = str(error)
        for pattern, accepted in _NO_VALUE:
            said = re.sub(pattern, accepted, said, flags=re.DOTALL)
        raise UsageError(said) from None


def engine_named(name: str) -> "Engine":
    """The engine of `--launch`.

    Raises:
        UsageError: if there is none of that name.
    """
    # Commands that launch nothing need none.
    from classact.launch.engines import registry

    try:
        return registry.get(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def parse_all(argv: Sequence[str], *required: flags.FlagHolder[Any]) -> None:
    """Parses flags where nothing else is accepted.

    Args:
        argv: the command's name and its arguments.
        *required: flags that must have a value.

    Raises:
        UsageError: as `parse`, and for what is no flag or lacks.
        command_help.HelpAsked: if help is asked for.
    """
    rest = parse(argv)
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}: everything is given as --NAME=VALUE")
    for flag in required:
        # Empty, it is a variable of a shell's that was not set.
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}")
