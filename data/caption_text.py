"""Captions as bytes in files become text."""

import codecs
from collections import Counter
from collections.abc import Sequence

from classact.data.damage import accepted_damage, too_many_damaged
from classact.data.decode import ImageFile
from classact.data.left_out import LeftOut
from classact.data.source import DataError

_KINDS = 5
CAPTIONS = ("one", "lines")
# UTF-32's marks begin with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def captions_option(source: str, value: str) -> bool:
    """Whether each line is a caption; DataError unless the option `captions` is one of `CAPTIONS`."""
    if value not in CAPTIONS:
        raise DataError(
            f"data source {source!r}: captions={value}, expected one (a file is a caption) "
            "or lines (each of its lines is one)"
        )
    return value == "lines"


def captions_of(content: bytes, *, lines: bool = False) -> list[str]:
    r"""The captions in a text file: its whole text, as in WebDataset, or each of its lines.

    White space around a caption is taken away; within one it stays as it is, for the
    tokenizer to read. Lines end with `\n` or `\r\n` and nothing else.

    Args:
        content: UTF-8, or UTF-16 or UTF-32 with a byte order mark.
        lines: whether each line is a caption.

    Returns:
        The captions that are not empty.

    Raises:
        ValueError: if it is no such text.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    # The two others take their mark away themselves.
    text = content.decode(encoding).removeprefix("\ufeff")
    if "\0" in text:
        raise ValueError("it has null bytes, as UTF-16 has")
    captions = map(str.strip, text.split("\n") if lines else (text,))
    return [caption for caption in captions if caption]


class CaptionedImages:
    """Images with their captions, as the opener of a source finds them, and what it leaves out.

    Args:
        name: the source's name, for errors.
        lines: whether each line of a text is a caption.

    Attributes:
        files: the images.
        captions: of each image, none empty.
        left_out: where the opener counts what it leaves out itself.
        beside: what else lies beside examples, as `pairing.pair_up` counts it.
    """

    def __init__(self, name: str, lines: bool) -> None:
        self.name = name
        self.files: list[ImageFile] = []
        self.captions: list[Sequence[str]] = []
        self.left_out = LeftOut()
        self.beside: Counter[str] = Counter()
        self._lines = lines
        self._unreadable = 0
        self._last_error = ""
        self._several = 0

    def add(self, image: ImageFile, text: object, content: bytes) -> None:
        """Takes an example, unless its caption is empty or no text.

        Args:
            image: the image.
            text: the caption's file, by `str`.
            content: what is in it.
        """
        try:
            captions = captions_of(content, lines=self._lines)
        except ValueError as error:
            self._unreadable += 1
            self._last_error = f"{text}: {error}"
            self.left_out.add("with a caption that is no UTF-8", text)
            return
        if not captions:
            self.left_out.add("with an empty caption", text)
            return
        self._several += not self._lines and "\n" in captions[0]
        self.files.append(image)
        self.captions.append(captions)

    def finish(self) -> None:
        """Says what there is to say of all of them; DataError if too many captions are no text."""
        total = len(self.files) + self._unreadable
        if too_many_damaged(self._unreadable, total):
            raise DataError(
                f"{self.name}: {self._unreadable} of {total} captions are no UTF-8, expected "
                f"{accepted_damage(total)}; the last one is {self._last_error}: convert them, "
                "or begin each with a byte order mark"
            )
        if self._several:
            self.left_out.remarks.append(
                f"captions of several lines: {self._several:,} (a file is one caption; "
                "?captions=lines makes one of each line)"
            )
        if self.beside:
            kinds = ", ".join(f"{count:,} {reason}" for reason, count in self.beside.most_common(_KINDS))
            self.left_out.remarks.append(f"not read, beside their images: {kinds}")
