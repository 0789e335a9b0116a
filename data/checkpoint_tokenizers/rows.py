"""Rows of tokens as a checkpoint's own tokenizer makes them, and what its modules share."""

import importlib
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from classact.data.source import DataError
from classact.data.tokenizer import BaseTokenizer


class CheckpointTokenizer(BaseTokenizer):
    """What makes the rows of a checkpoint's own tokenizer.

    Args:
        ids: the tokens of a text, of any length, without what `start` and `end` add.
        vocab_size: ids are in [0, vocab_size).
        context_length: L, of a row.
        start: ids that begin each row.
        end: ids that end each text; what does not fit before them is cut.
        pad_id: fills the rest of a row.
        decode: makes text of ids again.
        left: whether what fills a row comes first.

    Raises:
        ValueError: for a context length below 3.
    """

    def __init__(
        self,
        ids: Callable[[str], list[int]],
        vocab_size: int,
        context_length: int,
        start: tuple[int, ...],
        end: tuple[int, ...],
        pad_id: int,
        decode: Callable[[list[int]], str],
        left: bool = False,
    ) -> None:
        super().__init__(
            vocab_size,
            context_length,
            # A tower that reads the last place asks for no end.
            start_id=start[0] if start else -1,
            end_id=end[-1] if end else -1,
            pad_id=pad_id,
        )
        self._ids, self._start, self._end, self._decode, self._left = ids, start, end, decode, left

    @property
    def max_tokens(self) -> int:
        """How many tokens of a caption fit."""
        return self.context_length - len(self._start) - len(self._end)

    def tokens(self, captions: Iterable[str]) -> list[list[int]]:
        """See `BaseTokenizer.tokens`."""
        return [self._ids(caption) for caption in captions]

    def pack(self, tokens: Any) -> np.ndarray:
        """See `BaseTokenizer.pack`."""
        packed = np.full((len(tokens), self.context_length), self.pad_id, np.int32)
        for row, ids in zip(packed, tokens, strict=True):
            fitting = [*self._start, *ids[: self.max_tokens], *self._end]
            place = slice(len(row) - len(fitting), None) if self._left else slice(len(fitting))
            row[place] = fitting
        return packed

    def decode(self, text: np.ndarray) -> list[str]:
        """See `BaseTokenizer.decode`."""
        added = {*self._start, *self._end, self.pad_id}
        return [self._decode([token for token in row if token not in added]) for row in text.tolist()]


def package(name: str) -> Any:
    """A package of the extra `texts`; DataError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise DataError(
            f"this tokenizer needs the package {name}, which is not installed: pip install classact[texts]"
        ) from None


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file, an empty one if there is no file; DataError if it is damaged."""
    try:
        return group(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def group(value: Any) -> dict[str, Any]:
    """A group of fields; an empty one for anything else."""
    return value if isinstance(value, dict) else {}
