"""What a source found and does not show: counted by reason, with the first names."""

from collections.abc import Iterator

_NAMES = 3
_REASONS = 8


class LeftOut:
    """Counts what is left out while a source is opened; said once, before a run starts.

    Not thread-safe: only who opens the source adds to it.

    Attributes:
        remarks: whole lines on what was found, that are no loss but that a user may not expect.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        self.remarks: list[str] = []

    def add(self, reason: str, name: object, count: int = 1) -> None:
        """Counts what is left out for a reason.

        Args:
            reason: in a few words, such as "without a caption"; equal reasons are counted together.
            name: of the (first) thing that is left out, by `str` as a person finds it; the
                first few are kept.
            count: how many things.
        """
        self._counts[reason] = self._counts.get(reason, 0) + count
        names = self._names.setdefault(reason, [])
        if len(names) < _NAMES:
            names.append(str(name))

    def __iter__(self) -> Iterator[tuple[str, int, tuple[str, ...]]]:
        """Yields (reason, count, first names), the most frequent reason first."""
        for reason, count in sorted(self._counts.items(), key=lambda item: -item[1]):
            yield reason, count, tuple(self._names[reason])

    def lines(self) -> list[str]:
        """One line a reason, such as "3 without a caption: a.png, b.png, …"; the rarest in one."""
        all_of_them = list(self)
        shown, rest = all_of_them[:_REASONS], all_of_them[_REASONS:]
        lines = [
            f"{count:,} {reason}: {', '.join(names)}{', …' if count > len(names) else ''}"
            for reason, count, names in shown
        ]
        if rest:
            total = sum(count for _, count, _ in rest)
            lines.append(
                f"{total:,} for {len(rest):,} other reasons: {', '.join(r for r, _, _ in rest[:_NAMES])}, …"
            )
        return lines
