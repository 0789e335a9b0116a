"""Code of a user's own: what a configuration names as `package.module:name`.

Policies, models, sources and tokenizers are found here, in one way, in every process
of a program: the launcher, each node, `evaluate` and `actors`. So a name that works
in one of them works in all.

What it finds is also remembered as the user's, to tell an error in such code from one
of classact's or of the machine's. `nodes.errors` and `launch.engines.entry` end a run by it at
once: the same code fails in the same way after a restart.
"""

import contextlib
import difflib
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Optional

_NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<attribute>[A-Za-z_]\w*)")
_LONGEST = 300
# A restart may cure these wherever they are raised: a disk, a network, memory.
_OF_THE_MACHINE = (OSError, MemoryError)
# The names of modules that hold a user's code; what is below them does too.
_modules: set[str] = set()


class UserCodeError(ValueError):
    """What is named as `package.module:name` cannot be found; one line says why."""


def is_name(text: str) -> bool:
    """Whether a text has the form `package.module:name`."""
    return _NAME.fullmatch(text) is not None


def use_working_directory() -> None:
    """Lets modules be imported from the directory in which this process was started.

    Every node does so too. What is installed, or on PYTHONPATH, comes first.
    """
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.append(directory)


def find(kind: str, name: str) -> Any:
    """Imports a module and returns what it has under a name.

    Args:
        kind: what it is for, such as "policy"; begins the error.
        name: `package.module:name`.

    Raises:
        UserCodeError: if there is no such module or name, or if the module fails.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UserCodeError(f"{kind} {name!r}: expected package.module:name")
    module = _import(f"{kind} {name!r}", found["module"])
    attribute = found["attribute"]
    try:
        value = getattr(module, attribute)
    except AttributeError:
        near = difflib.get_close_matches(attribute, vars(module), n=3)
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        raise UserCodeError(f"{kind} {name!r}: {found['module']} has no {attribute!r}{hint}") from None
    adopt(value)
    return value


def has_module(name: str) -> bool:
    """Whether there is a module of the name `package.module:name`; imports no module of that name."""
    module = name.partition(":")[0]
    try:
        return importlib.util.find_spec(module) is not None
    # A package around it is imported, and may fail in any way; `find` says how.
    except Exception:
        return True


def _import(what: str, module: str) -> Any:
    _note(module)
    try:
        return importlib.import_module(module)
    # A user's module may fail in any way.
    except Exception as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{missing}."):
            raise UserCodeError(
                f"{what}: there is no module {missing}, neither in the directory in which classact was "
                f"started, {os.getcwd()}, nor on PYTHONPATH, nor installed"
            ) from None
        raise UserCodeError(f"{what}: {module} cannot be imported: {described(error)}") from error


def adopt(value: Any) -> None:
    """Notes that a function, or an object's class, is a user's: errors that pass through it are too."""
    _note(str(getattr(value, "__module__", None) or ""))


def importable_name(value: Any) -> Optional[str]:
    """The `package.module:name` under which another process finds an object; None if there is none.

    For what was registered under a short name by a module that this process has
    imported and others will not.
    """
    own = getattr(value, "__module__", None)
    names = [own, *sys.modules] if own in sys.modules else list(sys.modules)
    for name in names:
        module = sys.modules.get(name)
        if module is None or name == "__main__" or getattr(module, "__spec__", None) is None:
            continue
        for attribute, held in list(vars(module).items()):
            if held is value and is_name(f"{name}:{attribute}"):
                return f"{name}:{attribute}"
    return None


def require_importable(kind: str, name: str, value: Any) -> str:
    """Returns the `package.module:name` of something that was registered under a short name.

    Raises:
        UserCodeError: if there is none: other processes could not find it.
    """
    found = importable_name(value)
    if found is None:
        raise UserCodeError(
            f"{kind} {name!r} was registered by code that other processes do not run, such as the "
            f"configuration file: put it in a module of its own and name it as module:function"
        )
    return found


def blamed(error: Optional[BaseException], of_the_machine: bool = False) -> Optional[str]:
    """Where a user's code failed, if that is what an error, or one behind it, means.

    Args:
        error: what was raised.
        of_the_machine: whether errors of the machine (OSError, MemoryError) count too,
            which may pass.

    Returns:
        For instance "KeyError: 'entropy' (my_policies.py, line 7)"; None if the error
        did not pass through code that `find` has found, or `adopt` was told of.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        own = any(_is_own(frame.f_globals) for frame, _ in traceback.walk_tb(error.__traceback__))
        if own and (of_the_machine or not isinstance(error, _OF_THE_MACHINE)):
            return described(error)
        error = error.__cause__ or error.__context__
    return None


def described(error: BaseException) -> str:
    """An error in one line, with the last line of a user's file that it passed through."""
    # What JAX adds to its errors is long, and not of the user's code.
    said = " ".join(str(error).split("The error occurred while tracing")[0].split("\n\n")[0].split())
    if isinstance(error, SyntaxError):
        said = f"{error.msg} ({pathlib.Path(error.filename or '').name}, line {error.lineno})"
        return f"{type(error).__name__}: {said}"
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]} …"
    where = [
        f" ({pathlib.Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_own(frame.f_globals)
    ]
    return f"{type(error).__name__}: {said}{where[-1] if where else ''}"


@contextlib.contextmanager
def reported_as(kind: type[Exception], what: str) -> Iterator[None]:
    """Turns an error in a user's code into one of a kind that is told in one line.

    Args:
        kind: of the error that is raised; those that are of it already pass.
        what: begins the line: the field and its value.
    """
    try:
        yield
    except kind:
        raise
    # A user's function may fail in any way; what is not of its making goes on as it is.
    except Exception as error:
        said = blamed(error, of_the_machine=True)
        if said is None:
            raise
        raise kind(f"{what}: {said}") from error


def _note(module: str) -> None:
    package = module.partition(".")[0]
    # An object of a class of Python's own says nothing of who has made it.
    if package and package != "classact" and package not in sys.stdlib_module_names:
        _modules.add(module)


def _is_own(names: dict[str, Any]) -> bool:
    module = str(names.get("__name__", ""))
    return module in _modules or any(module.startswith(f"{own}.") for own in _modules)
