"""The names that a spec may begin with, and what opens them.

A spec is `name`, `name:ARGUMENT` or either with options, `name:ARGUMENT?key=value&key=value`.
The sources that come with classact are in `builtin`; a user's is a function in a module
that Python can import, for instance in `my_sources.py`

    def open_squares(argument: str, split: str, *, size: str = "32") -> Source:
        ...

whose name is `my_sources:open_squares`. So these are specs: `my_sources:open_squares`,
`my_sources:open_squares?size=64` and `my_sources:open_squares:ARGUMENT?size=64`. Every
process of a program finds it; `docs/extending.md` has an example that runs.

`register_source` gives a function a short name in the processes that import its module.
"""

import difflib
import inspect
import os
import re
from collections.abc import Callable

from classact import user_code
from classact.data.source import DataError, Source

# opener(argument, split, **options) -> source; the options are strings, and are
# the function's keyword-only parameters.
Opener = Callable[..., Source]

_OPENERS: dict[str, Opener] = {}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Only these options may have slashes: one behind a question mark is otherwise a part of the argument.
_OPTION = r"((folder|classes|image|label|caption)=[^?&=]*|[a-z_]+=[^?&=/]*)"
_OPTIONS = re.compile(f"{_OPTION}(&{_OPTION})*")


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
        user_code.adopt(opener)
        return opener

    return decorator


def source_names() -> list[str]:
    """The names that a spec may begin with, sorted."""
    return sorted(_OPENERS)


def find_opener(spec: str) -> tuple[Opener, str, dict[str, str]]:
    """Splits a spec into (opener, argument, options), and checks name and options.

    Raises:
        DataError: for an unknown name or option, or a module that cannot be imported.
    """
    name, argument, tail = _split(spec)
    opener = _OPENERS[name] if name in _OPENERS else _users_opener(spec, name)
    options = dict(pair.split("=", 1) for pair in tail.split("&")) if tail else {}
    accepted = [
        parameter.name
        for parameter in inspect.signature(opener).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in accepted:
            # The query of a URL may be what signs it.
            told = spec.rpartition("?")[0] if "://" in spec else spec
            raise DataError(f"data source {told!r}: unknown option {option!r}{_nearest(option, accepted)}")
    return opener, argument, options


def is_users(spec: str) -> bool:
    """Whether a spec names a source that does not come with classact."""
    name = _split(spec)[0]
    return name not in _OPENERS or not _is_own(_OPENERS[name])


def short_name(spec: str) -> str:
    """What a data set is called by its spec: the source's name, or that of a user's function."""
    name = _split(spec)[0]
    return name.rpartition(":")[2].lower()


def importable_spec(spec: str) -> str:
    """A spec that every process understands: a registered name becomes `module:function`.

    Raises:
        DataError: if the function that is registered is in no module that can be imported.
    """
    name, argument, tail = _split(spec)
    if name not in _OPENERS or _is_own(_OPENERS[name]):
        return spec
    try:
        found = user_code.require_importable("data source", name, _OPENERS[name])
    except user_code.UserCodeError as error:
        raise DataError(str(error)) from None
    return found + (f":{argument}" if argument else "") + (f"?{tail}" if tail else "")


def _is_own(opener: Opener) -> bool:
    return str(getattr(opener, "__module__", "")).startswith("classact.")


def _split(spec: str) -> tuple[str, str, str]:
    """A spec's (name, argument, options); the name is registered, or `module:function`."""
    head, mark, tail = spec.rpartition("?")
    # A question mark can be a part of a path: options look like options.
    if not (mark and _OPTIONS.fullmatch(tail)):
        head, tail = spec, ""
    name, _, argument = head.partition(":")
    if name not in _OPENERS:
        function, _, rest = argument.partition(":")
        if user_code.is_name(f"{name}:{function}"):
            name, argument = f"{name}:{function}", rest
    return name, argument, tail


def _users_opener(spec: str, name: str) -> Opener:
    registered = name.partition(":")[0]
    if not user_code.is_name(name) or not user_code.has_module(name):
        raise DataError(f"unknown data source {spec!r}{_meant(spec, registered)}")
    try:
        opener = user_code.find("data source", name)
    except user_code.UserCodeError as error:
        raise DataError(str(error)) from error
    if not callable(opener):
        raise DataError(f"data source {spec!r}: {name} is no function, but a {type(opener).__name__}")
    return opener


def _meant(spec: str, name: str) -> str:
    """What may have been meant by an unknown source."""
    near = difflib.get_close_matches(name, source_names(), n=3, cutoff=0.5)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if os.path.isdir(spec) or "/" in name:
        hints.append(f"a folder is folder:{spec}, a data set of Hugging Face's hub hf:{spec}")
    if spec.endswith((".npz", ".tar", ".parquet", ".csv", ".tsv")):
        hints.append(f"this file is {spec.rpartition('.')[2]}:{spec}")
    if ".tfrecord" in spec:
        hints.append(f"such files are tfrecord:{spec}")
    if ".array_record" in spec or ".arrayrecord" in spec:
        hints.append(f"such files are arrayrecord:{spec}")
    if "webdataset" in name.lower():
        hints.append("tar shards are tar:PATTERN")
    if user_code.is_name(":".join(spec.partition("?")[0].split(":")[:2])):
        hints.append(
            f"there is no module {name} in {os.getcwd()}, where classact was started, nor on PYTHONPATH"
        )
    known = (
        f"(known: {', '.join(source_names())}; a folder of images is folder:PATH, shards are tar:PATTERN, "
    )
    return "".join(f"; {hint}" for hint in hints) + f" {known}your own is module:function)"


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    return f"{hint} (known: {', '.join(known) or 'none'})"
