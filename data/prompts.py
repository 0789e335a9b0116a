"""Prompt templates and class names for zero-shot classification.

| spec | templates |
|---|---|
| `imagenet` | the 80 that CLIP was measured with on ImageNet |
| `simple` | the bare name and "a photo of a {}." |
| `icons` | a few for icons and symbols |
| `file:PATH` | those of a file |

A file has one entry a line, or is a JSON list of strings if its name ends in
`.json`; it is UTF-8. `templates/LICENSES.md` says where the lists come from.
"""

import json
import pathlib
import re

from classact.data.shown import is_text, shown
from classact.data.source import DataError

FOLDER = pathlib.Path(__file__).parent / "templates"


def template_names() -> tuple[str, ...]:
    """The names that `templates` knows, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def templates(spec: str) -> tuple[str, ...]:
    """Reads prompt templates.

    Args:
        spec: see the module's docstring.

    Returns:
        At least one template, each with one `{}` where the class name goes.

    Raises:
        DataError: for an unknown name, or a file that cannot be used; it names
            the file and the line (in JSON, the item).
    """
    path = FOLDER / f"{spec}.json" if spec in template_names() else _path(spec, template_names())
    entries = _read(path)
    for place, template in entries:
        if template.count("{}") != 1:
            raise DataError(f"{place}: {template!r} has {template.count('{}')} times {{}}, expected once")
    return tuple(template for _, template in entries)


def class_names(spec: str) -> tuple[str, ...]:
    """Reads class names: entry k of `file:PATH` names label k.

    Raises:
        DataError: if the spec is another, or the file cannot be used; it names
            the file and the line (in JSON, the item).
    """
    return tuple(name for _, name in _read(_path(spec, ())))


def fill(template: str, class_name: str) -> str:
    """Puts a class name into a template; its `-` and `_` are read as spaces.

    Raises:
        DataError: if nothing else is in the name, or it is that of a directory and no UTF-8.
    """
    if not is_text(class_name):
        raise DataError(
            f"class name '{shown(class_name)}': not UTF-8, so it cannot be read as words: rename it"
        )
    words = re.sub(r"[-_\s]+", " ", class_name).strip()
    if not words:
        raise DataError(f"class name {class_name!r}: expected words")
    return template.replace("{}", words)


def _path(spec: str, names: tuple[str, ...]) -> pathlib.Path:
    kind, _, path = spec.partition(":")
    if kind != "file" or not path:
        what = "templates" if names else "class names"
        raise DataError(f"{what} {spec!r}: expected {', '.join((*names, 'file:PATH'))}")
    return pathlib.Path(path).expanduser()


def _read(path: pathlib.Path) -> list[tuple[str, str]]:
    """(place, text) of each entry, without the white space around it; at least one, none empty."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error
    if path.suffix == ".json":
        unit, entries = "item", _parse_json(path, content)
    else:
        # Not splitlines(): it also splits at characters that an editor does not count as a line's end.
        unit, entries = "line", content.rstrip().split("\n") if content.strip() else []
    if not entries:
        raise DataError(f"{path}: has no entries, expected at least one")
    places = [f"{path}, {unit} {number}" for number in range(1, len(entries) + 1)]
    for place, entry in zip(places, entries, strict=True):
        # An empty line in the middle would shift the labels of the names after it.
        if not isinstance(entry, str) or not entry.strip():
            raise DataError(f"{place}: {entry!r}, expected text")
    return [(place, entry.strip()) for place, entry in zip(places, entries, strict=True)]


def _parse_json(path: pathlib.Path, content: str) -> list:
    try:
        entries = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise DataError(f"{path}: not a list of strings ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: a JSON {type(entries).__name__}, expected a list of strings")
    return entries
