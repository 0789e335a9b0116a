"""What a run says of itself on the terminal before anything starts."""

from collections.abc import Sequence

import numpy as np

from classact.data import inspected
from classact.data.source import Source


class FirstLines:
    """Collects lines while a run is prepared; each is said once, in the order in which it came.

    Lines that a user should act on begin with "warning: ". An indented line belongs to
    the one before it that is not, and is said below that one.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, dict[str, None]] = {}
        self._head = ""

    def say(self, line: str) -> None:
        """Adds a line, unless it is there."""
        if line.startswith(" ") and self._head:
            self._blocks[self._head][line] = None
        else:
            self._head = line
            self._blocks.setdefault(line, {})

    def warn(self, line: str) -> None:
        """Adds a line that begins with "warning: ", unless it is there."""
        self.say(f"warning: {line}")

    def lines(self) -> Sequence[str]:
        """All lines, without the program's name in front."""
        return tuple(line for head, below in self._blocks.items() for line in (head, *below))


def counted(number: int, noun: str) -> str:
    """A number of things in words, such as "1 image" or "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_source(source: Source, use: str = "trains on") -> list[str]:
    """What was found of a source, and below it, indented, what was left out and why.

    Args:
        source: as it is used, with its views.
        use: what it is for, before its name.
    """
    # With counts it sorts, which takes a hundredth of the time that NumPy's table of hashes does.
    images = None if source.image_of is None else len(np.unique(source.image_of, return_counts=True)[0])
    what = counted(source.num_examples, "pair" if source.captioned else "image")
    if images is not None and images != source.num_examples:
        what = f"{counted(source.num_examples, 'pair')} of {counted(images, 'image')}"
    kinds = f", {source.num_classes:,} class{'' if source.num_classes == 1 else 'es'}"
    height, width, channels = source.image_shape
    return [
        f"{use} {source.name}: {what}{kinds if source.num_classes else ''}, {height}×{width}×{channels}",
        *(f"  {line}" for line in inspected.in_short(source)),
        *(f"  left out: {line}" for line in source.left_out.lines()),
        *(f"  {remark}" for remark in source.left_out.remarks),
    ]
