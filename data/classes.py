"""What labels mean: the names of the classes, in the order of their numbers.

Whoever brings a model and a source together asks here. Equal names mean the same
class, whatever its number: a source is shown with the numbers that the model knows.
Where one of the two has no names, numbers are all that there is to compare.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from classact.data.shown import shown
from classact.data.source import Batch, DataError, Source
from classact.data.views import SourceView

_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Classes:
    """What the labels 0 to number − 1 mean.

    Attributes:
        number: how many classes there are; 0 without labels.
        names: what each is called, by number; None if unknown.
    """

    number: int
    names: Optional[tuple[str, ...]] = None

    def as_json(self) -> dict[str, Any]:
        """The fields of a JSON object that tell it."""
        return {"num_classes": self.number, "class_names": None if self.names is None else list(self.names)}

    @classmethod
    def from_json(cls, value: Any) -> "Optional[Classes]":
        """Reads what `as_json` gives, names being optional; None for anything else, and for no classes."""
        if not isinstance(value, Mapping):
            return None
        number, names = value.get("num_classes"), value.get("class_names")
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            return None
        if names is None:
            return cls(number)
        if not isinstance(names, list) or len(names) != number:
            return None
        return cls(number, tuple(map(str, names)))


def of_source(source: Source) -> Classes:
    """What a source's labels mean."""
    return Classes(source.num_classes, tuple(source.class_names) if source.class_names else None)


def same(a: Classes, b: Classes) -> bool:
    """Whether two have the same classes, in whatever order; by number where one has no names."""
    if a.names is None or b.names is None:
        return a.number == b.number
    return sorted(a.names) == sorted(b.names)


def difference(a: Classes, in_a: str, b: Classes, in_b: str) -> str:
    """Says by which classes two differ that are not the same.

    Args:
        a: the one.
        in_a: where its classes are, such as "here".
        b: the other.
        in_b: where its classes are.
    """
    if a.names is None or b.names is None or {*a.names} == {*b.names}:
        return f"{a.number} classes {in_a}, {b.number} {in_b}"
    known_a, known_b = {*a.names}, {*b.names}
    only_a = [name for name in a.names if name not in known_b]
    only_b = [name for name in b.names if name not in known_a]
    only = [f"{_listed(names)} only {where}" for names, where in ((only_a, in_a), (only_b, in_b)) if names]
    return f"classes differ: {', '.join(only)}"


def numbers(theirs: Classes, known: Classes, source: str, whose: str) -> Optional[np.ndarray]:
    """The number that each of some labels has in the order that a model knows.

    Args:
        theirs: what the labels mean. Classes may be lacking: they do not occur. Of those
            with names that is known only if the model's have names too.
        known: what the model's outputs mean.
        source: whose labels they are, for messages.
        whose: what knows the classes, for messages.

    Returns:
        int32[theirs.number], or None if each keeps its number.

    Raises:
        DataError: if there are classes that the model does not know; names the first. Also
            if names that come twice are in another order, so that they cannot be told apart.
    """
    if theirs.names is None or known.names is None:
        if theirs.number > known.number or (theirs.names is not None and theirs.number < known.number):
            raise DataError(f"{source}: {difference(theirs, 'here', known, f'in {whose}')}")
        return None
    if theirs.names == known.names:
        return None
    number = {name: index for index, name in enumerate(known.names)}
    if not number.keys() >= {*theirs.names}:
        raise DataError(f"{source}: {difference(theirs, 'here', known, f'in {whose}')}")
    for names in (theirs.names, known.names):
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(
                f"{source}: its classes are in another order than in {whose}, and cannot be mapped: "
                f"{twice!r} comes twice"
            )
    return np.array([number[name] for name in theirs.names], np.int32)


def in_order_of(source: Source, known: Classes, whose: str) -> Source:
    """A source with the labels, their number and names that a model knows.

    Args:
        source: a labelled source. It may lack classes.
        known: what the model's outputs mean.
        whose: what knows the classes, for messages.

    Returns:
        The source itself if its classes are just these; else a view, whose labels are
        mapped if both have names.

    Raises:
        DataError: see `numbers`.
    """
    theirs = of_source(source)
    mapped_to = numbers(theirs, known, source.name, whose)
    return source if theirs == known else _Renumbered(source, known, mapped_to)


def remark(theirs: Classes, known: Classes, source: str, whose: str) -> str:
    """What a user must know of labels that are not refused; empty if there is nothing.

    That names are compared with numbers, or that classes are lacking.

    Args:
        theirs: what a source's labels mean.
        known: what a model's outputs mean.
        source: whose labels they are.
        whose: what knows the classes.
    """
    if theirs.names is None and known.names is not None:
        return f"{source} has no class names: its labels are taken by number for the classes of {whose}"
    if theirs.names is not None and known.names is None:
        return f"{whose} has no class names: labels of {source} are taken by number"
    if theirs.number < known.number:
        return f"{source} has {theirs.number:,} of the {known.number:,} classes of {whose}"
    return ""


class _Renumbered(SourceView):
    def __init__(self, source: Source, known: Classes, mapped_to: Optional[np.ndarray]) -> None:
        super().__init__(source)
        self.num_classes, self.class_names = known.number, known.names
        self._mapped_to = mapped_to
        if mapped_to is not None and source.label_of is not None:
            self.label_of = mapped_to[source.label_of]

    def batch(self, indices: np.ndarray) -> Batch:
        batch = self.source.batch(indices)
        if self._mapped_to is None:
            return batch
        fields = ("label", "clean_label")
        return {**batch, **{name: self._mapped_to[batch[name]] for name in fields if name in batch}}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(f"'{shown(name)}'" for name in names[:_NAMED]) + (
        f" and {more} more" if more > 0 else ""
    )
