"""Vocabularies of sentencepiece, as SigLIP's are: as transformers reads them, and as big_vision does."""

import functools
import pathlib
import re
import string
from typing import Any

from classact.data.checkpoint_tokenizers.rows import CheckpointTokenizer, package
from classact.data.source import DataError

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UNDERLINE = "▁"


def siglip(path: pathlib.Path, context_length: int) -> CheckpointTokenizer:
    """SigLIP's as transformers has it: small letters, no punctuation, `</s>` at the end and as filling."""
    processor = _processor(path)
    end, unknown = processor.piece_to_id("</s>"), "<unk>"
    # The library strips what begins a text; behind a token that is taken away again it does not.
    extra = len(processor.encode(unknown))
    special = re.compile(r"\s*(</s>|<unk>)\s*")
    numbers = {"</s>": end, unknown: processor.piece_to_id(unknown)}

    def of_part(text: str) -> list[int]:
        plain = " ".join(text.lower().translate(_NO_PUNCTUATION).split())
        found = processor.encode(unknown + plain)
        return list(found[extra:] if len(found) >= extra else found)

    def ids(caption: str) -> list[int]:
        # What is spelled like a special token is one, as in transformers.
        parts = special.split(_UNDERLINE + caption.replace(_UNDERLINE, " "))
        found: list[int] = []
        for number, part in enumerate(parts):
            found += [numbers[part]] if number % 2 else of_part(part) if part else []
        return found[:-1] if found[-1:] == [end] else found

    return CheckpointTokenizer(
        ids, processor.get_piece_size(), context_length, (), (end,), end, processor.decode
    )


def big_vision(path: pathlib.Path, context_length: int) -> CheckpointTokenizer:
    """SigLIP's as big_vision has it (`lower`, `eos="sticky"`): `</s>` at the end and as filling."""
    processor = _processor(path)
    end = processor.piece_to_id("</s>")

    def ids(caption: str) -> list[int]:
        # As `tf.strings.lower` does, which knows the letters of ASCII alone.
        return list(processor.encode(caption.translate(_LOWER)))

    return CheckpointTokenizer(
        ids, processor.get_piece_size(), context_length, (), (end,), end, processor.decode
    )


@functools.lru_cache(maxsize=4)
def _processor(path: pathlib.Path) -> Any:
    sentencepiece = package("sentencepiece")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    # The library raises plain exceptions.
    except Exception as error:
        raise DataError(f"{path}: not a vocabulary of sentencepiece ({error})") from error
