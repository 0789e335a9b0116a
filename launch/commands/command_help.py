"""What `classact COMMAND --help` prints: how the command is used, and its own flags with their defaults."""

import textwrap
from collections.abc import Iterable, Sequence

from absl import flags

_ASKING = ("-h", "-help", "--help", "-helpfull", "--helpfull", "-helpshort", "--helpshort")
_WIDTH, _INDENT = 100, " " * 6


class HelpAsked(Exception):
    """The user asked what a command takes."""


def check(argv: Sequence[str]) -> None:
    """Raises HelpAsked if a command line asks for help."""
    words = list(argv)
    if "--" in words:
        words = words[: words.index("--")]
    if set(words) & set(_ASKING):
        raise HelpAsked


def of_command(command: str, usage: str, module: str, more: str = "") -> str:
    """Describes a command.

    Args:
        command: its name.
        usage: of all commands; each begins a line with its name, after two spaces.
        module: the name of the module that has defined its flags.
        more: paragraphs to end with.

    Returns:
        Lines, with one at the end of each.
    """
    lines = ["usage: classact COMMAND …", "", *_usage(command, usage), "", "flags:"]
    for flag in sorted(flags.FLAGS.flags_by_module_dict().get(module, []), key=lambda flag: flag.name):
        lines += _described(flag)
    return "\n".join([*lines, *([""] if more else []), *more.splitlines()]) + "\n"


def _usage(command: str, usage: str) -> Iterable[str]:
    """A command's own lines of the usage of all."""
    own = False
    for line in usage.splitlines():
        if line.startswith("  ") and not line.startswith("   "):
            own = line.split()[0] == command
        if own and line.strip():
            yield line
        elif not line.startswith("  "):
            own = False


def _described(flag: flags.Flag) -> list[str]:
    accepted = "|".join(getattr(flag.parser, "enum_values", ()))
    several = flag.flag_type().startswith("multi ")
    value = accepted or flag.flag_type().removeprefix("multi ").upper()
    name = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}={value}"
    # What absl adds of its own.
    said = flag.help.removeprefix(f"<{accepted}>: ").partition(";\n")[0].rstrip(".")
    default = str(flag.default).lower() if flag.boolean else flag.default
    default = "" if default in ("", None) or several else f" Default: {default}."
    return [
        name,
        *textwrap.wrap(f"{said}.{default}", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT),
    ]
