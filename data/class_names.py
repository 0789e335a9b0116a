"""Labels as a data set's files have them become numbers with names: one way for all sources that read labels.

`?classes=` says what numbers mean, where the files do not: how many there are, or a file of their names.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from classact.data.source import DataError

_SHOWN = 3


class Labels(NamedTuple):
    """The labels of a data set.

    Attributes:
        numbers: int32[N]; −1 where there is none.
        num_classes: they are in [0, num_classes).
        names: one a class, or None.
    """

    numbers: np.ndarray
    num_classes: int
    names: Optional[tuple[str, ...]]


class GivenClasses(NamedTuple):
    """What `?classes=` says.

    Attributes:
        number: how many classes there are.
        names: of these, or None.
        origin: what has said so, for errors.
    """

    number: int
    names: Optional[tuple[str, ...]]
    origin: str


def classes_option(source: str, value: Optional[str]) -> Optional[GivenClasses]:
    """Reads the option `classes`: a whole number, or a file of names.

    The file holds one name a line, by number from 0, or is JSON: a list of names, or an
    object of names by number, as ImageNet's and COCO's are published.

    Raises:
        DataError: if it is neither, or the file is missing or holds something else.
    """
    if value is None:
        return None
    if value.isdecimal() and int(value) > 0:
        return GivenClasses(int(value), None, f"classes={value}")
    path = pathlib.Path(value).expanduser()
    names = read_class_names(path)
    return GivenClasses(len(names), tuple(names), str(path))


def read_class_names(path: pathlib.Path) -> list[str]:
    """The names of classes in a file, by number from 0; see `classes_option`.

    Raises:
        DataError: if the file is missing or holds something else, or a name comes twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise DataError(
            f"classes={path}: cannot be read ({reason}); expected the number of classes, or a file of their "
            "names, one a line"
        ) from error
    names = _names_in(path, text)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: the class name {twice!r} comes twice, expected each once")
    return names


def numbered(
    values: Sequence[Any],
    where: str,
    given: Optional[GivenClasses] = None,
    known: Optional[Sequence[str]] = None,
) -> Labels:
    """Makes labels of what a data set says of each example.

    Numbers are taken as they are. Texts are names: their classes are in the order of
    `given`, of `known`, or else of the names.

    Args:
        values: of each example a whole number, a text, or None.
        where: the file and column, for errors.
        given: what `?classes=` says; goes before `known`.
        known: the names that the data set itself has for its numbers.

    Returns:
        The labels; an example without one, or with −1, has −1.

    Raises:
        DataError: if they are of another kind, of several, or outside of the classes that
            are given or known; names the first such example.
    """
    if known is not None and given is None:
        given = GivenClasses(len(known), tuple(map(str, known)), "the data set's own")
    present = [value for value in values if value is not None]
    if not present:
        raise DataError(f"{where}: no example has a label, expected a whole number or a name for each")
    if all(isinstance(value, str) for value in present):
        return _of_names(values, where, given)
    numbers = np.fromiter((_whole(value, row, where) for row, value in enumerate(values)), np.int64)
    return _of_numbers(numbers, where, given)


def _names_in(path: pathlib.Path, text: str) -> list[str]:
    if path.suffix.lower() != ".json":
        names = [line.strip() for line in text.splitlines()]
        while names and not names[-1]:
            names.pop()
        if not names or "" in names:
            empty = f"line {names.index('') + 1} is empty" if names else "it is empty"
            raise DataError(f"{path}: {empty}; expected the name of a class on each line")
        return names
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: no JSON ({error}); expected a list of class names") from error
    if isinstance(value, dict) and set(value) == {str(number) for number in range(len(value))}:
        value = [value[str(number)] for number in range(len(value))]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise DataError(f"{path}: expected a list of class names, or an object of them by number from 0")
    return value


def _of_names(values: Sequence[Any], where: str, given: Optional[GivenClasses]) -> Labels:
    found = {value for value in values if value is not None}
    if given is None or given.names is None:
        names = tuple(sorted(found))
        if given is not None and given.number != len(names):
            raise DataError(
                f"{where}: {len(names)} different labels, but {given.origin}; expected {len(names)}"
            )
    else:
        names = given.names
        unknown = sorted(found - set(names))
        if unknown:
            row = next(row for row, value in enumerate(values) if value == unknown[0])
            raise DataError(
                f"{where}: row {row} has the label {unknown[0]!r}, which is not among the {len(names)} "
                f"classes of {given.origin} ({_few(names)})"
            )
    number = {name: index for index, name in enumerate(names)}
    numbers = np.fromiter((-1 if value is None else number[value] for value in values), np.int32)
    return Labels(numbers, len(names), names)


def _of_numbers(numbers: np.ndarray, where: str, given: Optional[GivenClasses]) -> Labels:
    greatest = int(numbers.max())
    if given is None and greatest >= len(numbers):
        raise DataError(
            f"{where}: row {numbers.argmax()} has the label {greatest}, more than there are examples; "
            "if that is right, say ?classes=NUMBER, or a file of their names"
        )
    count = given.number if given is not None else max(greatest, 0) + 1
    outside = np.flatnonzero((numbers < -1) | (numbers >= count))
    if outside.size:
        row = int(outside[0])
        told = f" of {given.origin}" if given is not None else ""
        wanted = "whole numbers from 0" if greatest < 0 else f"0 to {count - 1}"
        raise DataError(
            f"{where}: row {row} has the label {numbers[row]}, expected {wanted}{told} "
            f"({outside.size:,} such rows; −1 is no label)"
        )
    if greatest < 0:
        raise DataError(f"{where}: no example has a label, expected a whole number or a name for each")
    return Labels(numbers.astype(np.int32), count, None if given is None else given.names)


def _whole(value: Any, row: int, where: str) -> int:
    """A number as it stands for a label; −1 for None."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return -1
    # Columns with gaps often have whole numbers as floating-point ones.
    if hasattr(value, "__index__") or (isinstance(value, (float, np.floating)) and float(value).is_integer()):
        return int(value)
    raise DataError(
        f"{where}: row {row} has the label {value!r} ({type(value).__name__}), expected whole numbers, or "
        "names, in all rows"
    )


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
