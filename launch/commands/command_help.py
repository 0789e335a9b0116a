"""What `classact COMMAND --help` prints: how the command is used, and its own flags with their defaults."""

import textwrap
from collections.abc import Sequence

from absl import flags

HEADER = "usage: classact COMMAND …"
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


def of_command(usage: str, module: str, more: str = "") -> str:
    """Describes a command.

    Args:
        usage: its lines in the usage of all commands.
        module: the name of the module that has defined its flags.
        more: paragraphs to end with.

    Returns:
        Lines, with one at the end of each.
    """
    lines = [HEADER, "", *usage.splitlines(), "", "flags:"]
    for flag in sorted(flags.FLAGS.flags_by_module_dict().get(module, []), key=lambda flag: flag.name):
        lines += _described(flag)
    return "\n".join([*lines, *([""] if more else []), *more.splitlines()]) + "\n"


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
