"""What a run says of itself on the terminal before anything starts."""

from collections.abc import Sequence

from classact.data.source import Source


class FirstLines:
    """Collects lines while a run is prepared; each is said once, in the order in which it came.

    Lines that a user should act on begin with "warning: ".
    """

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def say(self, line: str) -> None:
        """Adds a line, unless it is there."""
        self._lines[line] = None

    def warn(self, line: str) -> None:
        """Adds a line that begins with "warning: ", unless it is there."""
        self.say(f"warning: {line}")

    def lines(self) -> Sequence[str]:
        """All lines, without the program's name in front."""
        return tuple(self._lines)


def describe_source(source: Source) -> list[str]:
    """What was found of a source, and below it, indented, what was left out and why."""
    kinds = f", {source.num_classes:,} classes" if source.num_classes else ""
    what = "pairs" if source.captioned else "images"
    height, width, channels = source.image_shape
    found = f"{source.name}: {source.num_examples:,} {what}{kinds}, {height}×{width}×{channels}"
    return [found, *(f"  left out: {line}" for line in source.left_out.lines())]
