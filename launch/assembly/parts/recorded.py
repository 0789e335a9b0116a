"""What `config.json` records of a run's data, under `started`; of an older run there may be nothing."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from classact.data.fingerprint import same_contents


def may_have_moved(started: Any, names: tuple[str, ...], before: Any, now: Any) -> bool:
    """Whether a field names data that may only have moved: another path, the same source and options.

    `identity.check` must then find the same contents; where it could not, this is False.

    Args:
        started: of the run's `config.json`.
        names: of the field and the groups that it is in.
        before: the field's value in `config.json`.
        now: its value now.
    """
    if names[-1] not in ("train_data", "eval_data", "data"):
        return False
    if not (isinstance(before, str) and isinstance(now, str)) or _but_path(before) != _but_path(now):
        return False
    known = [*fingerprints(started, "data"), *fingerprints(started, "eval_data")]
    return bool(known) and all(found.get("digest") for _, found in known)


def moved_to(started: Any, before: Any, now: str, fingerprint: Mapping[str, Any]) -> Any:
    """The spec `now`, if it names what a run was trained on under the spec `before`; else `before`."""
    same = any(same_contents(found, fingerprint) for _, found in fingerprints(started, "data"))
    return now if same and isinstance(before, str) and _but_path(before) == _but_path(now) else before


def held_out_examples(started: Any) -> int:
    """How many examples a run held out of its data sets to measure on."""
    return sum(
        group(found).get("held_out_examples", 0) for found in group(group(started).get("data")).values()
    )


def _but_path(spec: str) -> list[tuple[str, str]]:
    """Names and options of a source, or of several that are joined by "+"."""
    found = []
    for part in re.split(r"\+(?=[a-z][a-z0-9_]*:)", spec):
        head, mark, options = part.rpartition("?")
        found.append((part.partition(":")[0], options if mark and ":" in head else ""))
    return found


def fingerprints(started: Any, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields name and fingerprint of what is recorded of a kind, where there is a fingerprint."""
    for name, found in group(group(started).get(kind)).items():
        fingerprint = group(group(found).get("fingerprint"))
        if fingerprint:
            yield name, fingerprint


def group(value: Any) -> Mapping[str, Any]:
    """A group of fields; an empty one for anything else."""
    return value if isinstance(value, dict) else {}
