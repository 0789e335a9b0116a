"""Which classes a run has learned, by what it recorded of them."""

import hashlib
from collections.abc import Mapping
from typing import Optional

from classact.data import classes
from classact.data.classes import Classes
from classact.experiments.curves import Run

_NAMED = 3


def learned_classes(run: Run) -> Optional[Classes]:
    """What the labels of a run mean; None for a run without classes, or that did not record their names."""
    described = run.field("started.data")
    if run.field("task", "classification") != "classification" or not isinstance(described, Mapping):
        return None
    # All data sets of a run have the run's classes.
    found = next(filter(None, map(Classes.from_json, described.values())), None)
    return found if found is not None and found.names is not None else None


def unlike(a: Run, b: Run) -> str:
    """By which classes two runs differ, in whatever order; empty if they do not, as far as is known."""
    ours, theirs = learned_classes(a), learned_classes(b)
    if ours is None or theirs is None or classes.same(ours, theirs):
        return ""
    return classes.difference(ours, f"in {a.path}", theirs, f"in {b.path}")


def in_words(run: Run) -> str:
    """The number and first names of a run's classes, different for different classes; empty if unknown."""
    found = learned_classes(run)
    if found is None or found.names is None:
        return ""
    names = sorted(found.names)
    more = len(names) - _NAMED
    # Not all names: there may be thousands, and the first may be equal.
    digest = hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()[:6]
    rest = f" and {more} more, #{digest}" if more > 0 else ""
    return f"{found.number}: {', '.join(names[:_NAMED])}{rest}"
