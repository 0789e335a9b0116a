"""What a source found and does not show: counted by reason, with the first names."""

from collections.abc import Iterator

_NAMES = 3


class LeftOut:
    """Counts what is left out while a source is opened; said once, before a run starts.

    Not thread-safe: only who opens the source adds to it.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Counts what is left out for a reason.

        Args:
            reason: in a few words, such as "without a caption"; equal reasons are counted together.
            name: of the (first) thing that is left out, as a person finds it; the first few are kept.
            count: how many things.
        """
        self._counts[reason] = self._counts.get(reason, 0) + count
        names = self._names.setdefault(reason, [])
        if len(names) < _NAMES:
            names.append(name)

    def __iter__(self) -> Iterator[tuple[str, int, tuple[str, ...]]]:
        """Yields (reason, count, first names), the most frequent reason first."""
        for reason, count in sorted(self._counts.items(), key=lambda item: -item[1]):
            yield reason, count, tuple(self._names[reason])

    def lines(self) -> list[str]:
        """One line a reason, such as "3 without a caption: a.png, b.png, …"."""
        return [
            f"{count:,} {reason}: {', '.join(names)}{', …' if count > len(names) else ''}"
            for reason, count, names in self
        ]
