"""Patterns of files, of all sources: URLs, and braces as `{000..099}` and `{a,b}`."""

import re
from collections.abc import Iterator

from classact.data.source import DataError

MAX_FILES = 1_000_000
# A URL's scheme; one letter is no scheme but a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_url(path: str) -> bool:
    """Whether a path is a URL such as `s3://bucket/a.tar`."""
    return _URL.match(path) is not None


def expanded(pattern: str) -> Iterator[str]:
    """As `expand`, for a pattern that must stand for a file.

    Raises:
        DataError: for a range without numbers, or after `MAX_FILES` names.
    """
    count = 0
    for count, path in enumerate(expand(pattern), start=1):
        if count > MAX_FILES:
            raise DataError(f"{pattern}: more than {MAX_FILES:,} files")
        yield path
    if not count:
        raise DataError(f"{pattern}: a range without numbers, expected {{FIRST..LAST}}")


def expand(pattern: str) -> Iterator[str]:
    """Replaces `{000..009}` by each number, as wide as the first, and `{a,b}` by each of the words.

    The first braces change last. Other braces stay as they are.
    """
    for braces in _BRACES.finditer(pattern):
        inside = braces[1]
        numbers = _RANGE.fullmatch(inside)
        if numbers:
            first, last = numbers.groups()
            words: Iterator[str] = (f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1))
        elif "," in inside:
            words = iter(inside.split(","))
        else:
            continue
        for word in words:
            yield from expand(f"{pattern[: braces.start()]}{word}{pattern[braces.end() :]}")
        return
    yield pattern
