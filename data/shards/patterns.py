"""Which shards a pattern names: wild cards, braces, and lists joined by `::`, each with a factor."""

import dataclasses
import glob
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Optional

from classact.data.file_patterns import MAX_FILES, expanded, is_url
from classact.data.options import positive_option
from classact.data.shown import shown
from classact.data.source import DataError

_SECRET = re.compile(r"(://)[^/@]*@")
# A query of a URL, which `?` before a wild card's letters is not.
_QUERY = re.compile(r"\?[^=/]+=")
# An address of IPv6 has `::` within brackets.
_LISTS = re.compile(r"::(?![^\[\]]*\])")


@dataclasses.dataclass(frozen=True)
class ShardList:
    """Shards that come equally often.

    Attributes:
        paths: of files, or URLs.
        factor: how often each example comes in an epoch.
    """

    paths: tuple[str, ...]
    factor: int = 1


def shard_lists(argument: str, factors: Optional[str] = None) -> list[ShardList]:
    """The shards that `PATTERN::PATTERN…` names, in order.

    In a pattern `*`, `?` and `[…]` match as in a shell, sorted; `{000..009}` stands for each
    number, as wide as the first, and `{a,b}` for either. URLs have no wild cards: which
    files a server has is not asked.

    Args:
        argument: the patterns; a file of a disk that no name matches is an error.
        factors: `N::N…`, one whole number a pattern: each example of its shards comes so often
            in an epoch. None: once.

    Raises:
        DataError: if a pattern matches nothing, a shard is named twice, a factor is none, or a
            URL says a password or a signature: these would be written into the run's directory.
    """
    if not argument:
        raise DataError("data source 'tar' needs a path: tar:PATTERN")
    patterns = _LISTS.split(argument)
    for pattern in patterns:
        _refuse_secrets(pattern)
    numbers = [1] * len(patterns)
    if factors is not None:
        given = factors.split("::")
        if len(given) != len(patterns):
            raise DataError(
                f"data source 'tar': factors={factors}: {len(given)} for {len(patterns)} patterns, "
                "expected one a pattern, joined by ::"
            )
        numbers = [positive_option("tar", "factors", each) for each in given]
    found = [
        ShardList(tuple(_paths(pattern)), number) for pattern, number in zip(patterns, numbers, strict=True)
    ]
    seen = set[str]()
    for path in itertools.chain.from_iterable(each.paths for each in found):
        if path in seen:
            raise DataError(f"{path}: named twice in {argument}; factors=2 makes its examples come twice")
        seen.add(path)
    return found


def _refuse_secrets(pattern: str) -> None:
    hidden = _SECRET.sub(r"\1…@", pattern)
    if hidden != pattern:
        raise DataError(
            f"data source 'tar:{hidden}': a URL with a user or a password, which a run would write down: "
            "keep them where the storage's own tools look for them (environment, ~/.aws, ~/.netrc, …)"
        )
    query = _QUERY.search(pattern)
    if is_url(pattern) and query:
        raise DataError(
            f"data source 'tar:{pattern[: query.start()]}?…': a URL with a query; what signs it would be "
            "written down: expected a plain URL, and credentials where the storage's own tools look for them"
        )


def _paths(pattern: str) -> Iterator[str]:
    """The shards of one pattern."""
    if not pattern:
        raise DataError("data source 'tar': an empty pattern beside ::, expected tar:PATTERN::PATTERN")
    url = is_url(pattern)
    count = 0
    for path in expanded(pattern if url else str(pathlib.Path(pattern).expanduser())):
        if url and "*" in path:
            raise DataError(f"{path}: a URL with a wild card, expected braces, as in train-{{000..099}}.tar")
        matches = [path] if url else sorted(glob.glob(path)) or sorted(glob.glob(glob.escape(path)))
        if not matches:
            raise DataError(f"{path}: no such file")
        folder = next((each for each in matches if not url and os.path.isdir(each)), None)
        if folder is not None:
            raise DataError(f"{shown(folder)}: a directory, expected files: tar:'{shown(folder)}/*.tar'")
        yield from matches
        count += len(matches)
        if count > MAX_FILES:
            raise DataError(f"{pattern}: more than {MAX_FILES:,} shards")
