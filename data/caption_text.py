"""Captions as bytes in files become text."""

import codecs
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from classact.data.damage import accepted_damage, too_many_damaged
from classact.data.decode import ImageFile
from classact.data.left_out import LeftOut
from classact.data.pairing import remarks_on
from classact.data.source import DataError

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


def json_value(content: bytes, key: str) -> Any:
    """What a JSON object says under a key; `a.b` is the key b of the object under a.

    Raises:
        ValueError: if it is no JSON object.
        LookupError: if it has no such key, or null there; the message is its keys.
    """
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f"it is JSON of another kind, {type(found).__name__}, expected an object")
    value: Any = found
    for part in (key,) if key in found else key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        raise LookupError(", ".join(sorted(map(str, found))))
    return value


def captions_in_json(content: bytes, key: str, *, lines: bool = False) -> list[str]:
    """The captions under a key of a JSON object: a text, or a list of texts, each as in `captions_of`.

    Raises:
        ValueError: if it is no JSON object, or something else is there.
        LookupError: as of `json_value`.
    """
    value = json_value(content, key)
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key!r} is {str(value)[:40]}, expected a text or a list of texts")
    # A lone surrogate, which JSON can say, is no text.
    return [found for text in texts for found in captions_of(text.encode(errors="strict"), lines=lines)]


class CaptionedImages[File: ImageFile]:
    """Images with their captions, as the opener of a source finds them, and what it leaves out.

    Args:
        name: the source's name, for errors.
        lines: whether each line of a text is a caption.
        key: if texts are JSON, where in it the captions are.

    Attributes:
        files: the images, as far as `take` has not taken them.
        captions: of each image, none empty.
        left_out: where the opener counts what it leaves out itself.
        beside: what else lies beside examples, as `pairing.pair_up` counts it.
    """

    def __init__(self, name: str, lines: bool, key: str = "") -> None:
        self.name = name
        self._key = key
        self._unread = f"no JSON with texts under {key!r}" if key else "no UTF-8"
        self._taken = 0
        self.files: list[File] = []
        self.captions: list[Sequence[str]] = []
        self.left_out = LeftOut()
        self.beside: Counter[str] = Counter()
        self._lines = lines
        self._unreadable = 0
        self._last_error = ""
        self._several = 0

    def add(self, image: File, text: object, content: bytes) -> None:
        """Takes an example, unless its caption is empty or no text.

        Args:
            image: the image.
            text: the caption's file, by `str`.
            content: what is in it.
        """
        try:
            if self._key:
                captions = captions_in_json(content, self._key, lines=self._lines)
            else:
                captions = captions_of(content, lines=self._lines)
        except LookupError:
            self.left_out.add(f"without {self._key!r} in the .json", text)
            return
        except ValueError as error:
            self._unreadable += 1
            self._last_error = f"{text}: {error}"
            self.left_out.add(f"with a caption that is {self._unread}", text)
            return
        if not captions:
            self.left_out.add("with an empty caption", text)
            return
        self._several += not self._lines and not self._key and "\n" in captions[0]
        self.files.append(image)
        self.captions.append(captions)

    def take(self) -> tuple[list[File], list[Sequence[str]]]:
        """The images and their captions since the last call; they are no longer kept here."""
        taken = self.files, self.captions
        self._taken += len(self.files)
        self.files, self.captions = [], []
        return taken

    def finish(self) -> None:
        """Says what there is to say of all of them; DataError if too many captions are no text."""
        total = self._taken + len(self.files) + self._unreadable
        if too_many_damaged(self._unreadable, total):
            advice = "" if self._key else ": convert them, or begin each with a byte order mark"
            raise DataError(
                f"{self.name}: {self._unreadable} of {total} captions are {self._unread}, expected "
                f"{accepted_damage(total)}; the last one is {self._last_error}{advice}"
            )
        if self._several:
            self.left_out.remarks.append(
                f"captions of several lines: {self._several:,} (a file is one caption; "
                "?captions=lines makes one of each line)"
            )
        self.left_out.remarks += remarks_on(self.beside)
