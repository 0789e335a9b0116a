"""Labels as bytes in shards become numbers: of `.cls` members, or under a key of `.json` ones."""

from collections import Counter

import numpy as np

from classact.data.caption_text import json_value
from classact.data.damage import accepted_damage, too_many_damaged
from classact.data.left_out import LeftOut
from classact.data.pairing import remarks_on
from classact.data.source import DataError
from classact.data.tar_members import TarMember

_MOST_LABEL = 1 << 30


def label_of(content: bytes, key: str) -> int | str:
    """A label: a number, or the name of a class.

    Args:
        content: of a `.cls` member, a whole number or a name; of a `.json` member if there is a key.
        key: as in `json_value`; empty for `.cls`.

    Raises:
        ValueError: if there is something else.
        LookupError: as of `json_value`, and for −1, which stands for no label.
    """
    if key:
        value = json_value(content, key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
    else:
        text = content.decode().removeprefix("\ufeff").strip()
        value = int(text) if text.lstrip("-").isdecimal() and text.isascii() else text
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{str(value)[:40]!r}, expected a whole number or the name of a class")
    if value == -1:
        raise LookupError("-1")
    if isinstance(value, int) and not 0 <= value < _MOST_LABEL:
        raise ValueError(f"{value}, expected a whole number from 0 on")
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ValueError("it is empty" if not value.strip() else "it has null bytes")
    return value.strip() if isinstance(value, str) else value


class LabelledImages:
    """Images with their labels, as `caption_text.CaptionedImages` has captions.

    Args:
        name: the source's name, for errors.
        key: of JSON; empty for `.cls`.

    Attributes:
        left_out: where the opener counts what it leaves out itself.
        beside: what else lies beside examples, as `pairing.pair_up` counts it.
        names: if labels are names, each with the number that stands for it so far.
    """

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.left_out = LeftOut()
        self.beside: Counter[str] = Counter()
        self.names: dict[str, int] = {}
        self._key = key
        self._files: list[TarMember] = []
        self._labels: list[int] = []
        self._taken = self._unreadable = 0
        self._last_error = ""
        # The first example of either kind.
        self._first: dict[type, str] = {}

    def add(self, image: TarMember, text: TarMember, content: bytes) -> None:
        """Takes an example, unless its label cannot be read.

        Raises:
            DataError: if some labels are numbers and some are names.
        """
        try:
            label = label_of(content, self._key)
        except LookupError:
            self.left_out.add(f"without {self._key!r} in the .json" if self._key else "labelled -1", text)
            return
        except ValueError as error:
            self._unreadable += 1
            self._last_error = f"{text}: {error}"
            self.left_out.add("with a label that is none", text)
            return
        self._first.setdefault(type(label), f"{text} has {label!r}")
        if len(self._first) > 1:
            raise DataError(
                f"{self.name}: labels are numbers and names: {self._first[int]}, {self._first[str]}; "
                "expected one kind"
            )
        self._files.append(image)
        self._labels.append(
            self.names.setdefault(label, len(self.names)) if isinstance(label, str) else label
        )

    def take(self) -> tuple[list[TarMember], np.ndarray]:
        """The images and their labels int32[N] since the last call; they are no longer kept here."""
        taken = self._files, np.array(self._labels, np.int32)
        self._taken += len(self._files)
        self._files, self._labels = [], []
        return taken

    def finish(self) -> None:
        """Says what there is to say of all of them; DataError if too many labels are none."""
        total = self._taken + self._unreadable
        if too_many_damaged(self._unreadable, total):
            raise DataError(
                f"{self.name}: {self._unreadable} of {total} labels are none, expected "
                f"{accepted_damage(total)}; the last one is {self._last_error}"
            )
        self.left_out.remarks += remarks_on(self.beside)
