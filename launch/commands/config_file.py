"""A configuration file: Python whose function `get_config` returns a `ConfigDict`."""

import difflib
import inspect
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Sequence

import ml_collections

from classact.experiments.config import ConfigError
from classact.launch.commands import arguments, command_help

_PACKAGE = pathlib.Path(__file__).resolve().parents[2]
_SHIPPED = "those that come with classact are in experiments/configs/"
_MODULE = "classact_configuration"
_FIELD = re.compile(r"--?(no)?config\.(?P<path>[\w.]+)(=|$)")


def split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Takes `--config=FILE.py` out of a command line; of several the last counts.

    Returns:
        FILE.py, empty if there is none, and the other arguments, `--config.FIELD=VALUE` among them.
    """
    file, rest = "", []
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest += [argument, *arguments]
        elif name in ("--config", "-config"):
            file = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    return file, rest


def load(argument: str) -> ml_collections.ConfigDict:
    """Runs a configuration file.

    Args:
        argument: `FILE.py`, or `FILE.py:PART` whose PART is `get_config`'s argument. One of
            the package's own, such as `experiments/configs/demo.py`, is found from any folder
            that has no such file.

    Raises:
        ConfigError: if the file is not there, fails, or gives something else.
    """
    path, colon, part = argument.partition(":")
    flag, file = f"--config={argument}", _located(path)
    get_config = getattr(run_file(path, flag), "get_config", None)
    if not callable(get_config):
        raise ConfigError(f"{flag}: {path} has no function get_config, which returns the configuration")
    arguments = [part] if colon else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        accepted = f"its get_config takes no part, say --config={path}"
        if not colon:
            accepted = f"its get_config needs a part, say --config={path}:PART"
        raise ConfigError(f"{flag}: {accepted}") from None
    try:
        config = get_config(*arguments)
    # As above.
    except Exception as error:
        raise ConfigError(f"{flag}: {_described(error, file)}") from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"{flag}: get_config returned a {type(config).__name__}, expected the ConfigDict of "
            "classact.experiments.base.get_config(), with changes"
        )
    return config


def run_file(path: str, said: str) -> types.ModuleType:
    """Runs a file, the user's own or one of the package's, as a module.

    Args:
        path: of the file.
        said: what the user has typed, with which an error begins.

    Raises:
        ConfigError: if it is not there, or fails.
    """
    file = _located(path)
    if not os.path.isfile(file):
        reason = "it is a directory, name a file in it" if os.path.isdir(file) else f"no file {path}"
        raise ConfigError(f"{said}: {reason}; {_SHIPPED}")
    try:
        return _run(file)
    # A configuration is Python and may fail in any way.
    except Exception as error:
        raise ConfigError(f"{said}: {_described(error, file)}") from None


def parse(argv: Sequence[str]) -> ml_collections.ConfigDict:
    """The configuration that a command line names, with the fields that it sets.

    Args:
        argv: the command's name and its arguments; of flags those that the command has defined.

    Raises:
        arguments.UsageError: if there is none, it is not right, or something else is given.
        command_help.HelpAsked: if help is asked for.
    """
    # Before a configuration that may be missing, or fail.
    command_help.check(argv[1:])
    file, argv = split(argv)
    if not file:
        given = next((word for word in argv[1:] if re.search(r"\.py(:\w+)?$", word)), None)
        meant = f"did you mean --config={given}?" if given else "see experiments/configs/"
        raise arguments.UsageError(f"--config=FILE.py is missing; {meant}")
    try:
        config = load(file)
        check_fields(config, argv)
    except ConfigError as error:
        raise arguments.UsageError(str(error)) from None
    rest = arguments.parse(argv, config)
    if rest:
        raise arguments.UsageError(f"unexpected argument {rest[0]!r}: fields are set by --config.FIELD=VALUE")
    return config


def check_fields(config: ml_collections.ConfigDict, argv: Sequence[str]) -> None:
    """Checks that each field that a command line sets is one of the configuration.

    Raises:
        ConfigError: naming the nearest ones, or all of its group.
    """
    for argument in argv:
        found = _FIELD.match(argument)
        if found is None:
            continue
        inner, known = config, ""
        for name in found["path"].split("."):
            flag = f"--config.{found['path']}"
            if not isinstance(inner, ml_collections.ConfigDict):
                raise ConfigError(f"{flag}: {known[1:]} is one value, not a group of fields")
            if name not in inner:
                near = difflib.get_close_matches(name, list(inner), n=3) or sorted(inner)
                within = f" of {known[1:]}" if known else ""
                names = " or ".join(near) if near else "nothing, it has no fields"
                raise ConfigError(f"{flag}: unknown field {name!r}{within}, did you mean {names}?")
            inner, known = inner[name], f"{known}.{name}"


def _located(path: str) -> pathlib.Path:
    shipped = _PACKAGE / path
    return shipped if path and not os.path.exists(path) and os.path.isfile(shipped) else pathlib.Path(path)


def _run(file: pathlib.Path) -> types.ModuleType:
    """Runs a file as a module, without leaving bytecode beside it."""
    module = types.ModuleType(_MODULE)
    module.__file__ = str(file)
    # Where dataclasses, for instance, look up the module of what they are in.
    sys.modules[_MODULE] = module
    exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), module.__dict__)
    return module


def _described(error: Exception, file: pathlib.Path) -> str:
    """What went wrong and in which line of the file, in place of a traceback."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    said = str(error)
    if isinstance(error, SyntaxError):
        lines, said = ([error.lineno] if error.filename == str(file) else lines), error.msg
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {said}"
