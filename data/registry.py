"""The names that a spec may begin with, and what opens them.

A spec is `name`, `name:ARGUMENT` or either with options, `name:ARGUMENT?key=value&key=value`.
The sources that come with classact are in `builtin`; a user adds one by a function:

    @register_source("squares")
    def open_squares(argument: str, split: str, *, size: str = "32") -> Source:
        ...

which makes `squares`, `squares:ARGUMENT` and `squares?size=64` specs.
"""

import difflib
import inspect
import re
from collections.abc import Callable

from classact.data.source import DataError, Source

# opener(argument, split, **options) -> source; the options are strings, and are
# the function's keyword-only parameters.
Opener = Callable[..., Source]

_OPENERS: dict[str, Opener] = {}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OPTIONS = re.compile(r"[a-z_]+=[^?&=/]*(&[a-z_]+=[^?&=/]*)*")


def register_source(name: str) -> Callable[[Opener], Opener]:
    """Decorator that makes `opener(argument, split, **options)` the opener of a spec's name.

    Args:
        name: lower-case letters, digits and underscores.

    Returns:
        The decorator, which returns the function as it is. `argument` is what
        follows the colon (empty if nothing does), `split` is "train" or "eval",
        and the function's keyword-only parameters are the options it takes.

    Raises:
        ValueError: if the name is no name, or taken.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"source name {name!r}: expected lower-case letters, digits and underscores")
    if name in _OPENERS:
        raise ValueError(f"source name {name!r} is taken")

    def decorator(opener: Opener) -> Opener:
        _OPENERS[name] = opener
        return opener

    return decorator


def source_names() -> list[str]:
    """The names that a spec may begin with, sorted."""
    return sorted(_OPENERS)


def find_opener(spec: str) -> tuple[Opener, str, dict[str, str]]:
    """Splits a spec into (opener, argument, options), and checks name and options.

    Raises:
        DataError: for an unknown name or option.
    """
    head, mark, tail = spec.rpartition("?")
    # A question mark can be a part of a path: options look like options.
    if not (mark and _OPTIONS.fullmatch(tail)):
        head, tail = spec, ""
    name, _, argument = head.partition(":")
    if name not in _OPENERS:
        raise DataError(f"unknown data source {spec!r}{_nearest(name, source_names())}")
    options = dict(pair.split("=", 1) for pair in tail.split("&")) if tail else {}
    accepted = [
        parameter.name
        for parameter in inspect.signature(_OPENERS[name]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in accepted:
            raise DataError(f"data source {spec!r}: unknown option {option!r}{_nearest(option, accepted)}")
    return _OPENERS[name], argument, options


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    return f"{hint} (known: {', '.join(known) or 'none'})"
