"""Tokenizers: captions to `text: int32[B, L]`, as a text tower takes it.

| spec | vocabulary |
|---|---|
| `clip` | CLIP's 49,408 byte pairs, with CLIP's ids |
| `icons` | a small one, trained on the names of the embedded icons |
| `hf:FOLDER` and others | that of a published checkpoint, see `checkpoint_tokenizers` |
| `file:PATH` | any JSON file of the library `tokenizers`, for example one of `Tokenizer.save` |
| `package.module:function` | what a user's function makes, see `BaseTokenizer` |

`train_tokenizer` makes a vocabulary for other captions.
"""

import abc
import gzip
import html
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Optional

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from classact import user_code
from classact.data.source import DataError

# Kinds of `checkpoint_tokenizers`.
CHECKPOINTS = ("hf", "open_clip", "sentencepiece")
FOLDER = pathlib.Path(__file__).parent / "vocabularies"
_CLIP_MERGES = 48_894
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# Under the names of classact, CLIP, BERT and RoBERTa, in this order.
_START = ("<start>", "<|startoftext|>", "[CLS]", "<s>")
_END = ("<end>", "<|endoftext|>", "[SEP]", "</s>")
_PAD = ("<pad>", "[PAD]")


class BaseTokenizer(abc.ABC):
    """What makes tokens of captions: the base of `Tokenizer`, and of a user's own.

    A user's is made by a function in a module that Python can import, which
    `contrastive.tokenizer` names as `package.module:function` and which is called as
    `function(context_length)`. Every reader and evaluator of every process makes one of
    its own, and it must give the same tokens in all of them. One thread at a time calls it.

    Args:
        vocab_size: see below, as the others.
        context_length: at least 3.
        start_id: see below.
        end_id: see below.
        pad_id: see below.

    Attributes:
        vocab_size: ids are in [0, vocab_size).
        context_length: L, the tokens of a row, start and end included.
        start_id: the id of the first token of each row.
        end_id: the id of each caption's last token, which every row has once; there the
            text tower reads it.
        pad_id: the id that fills the rest of a row.
        unknown_id: the id of what the vocabulary has no token for; None if it has one
            for everything.

    Raises:
        ValueError: for a context length below 3.
    """

    unknown_id: Optional[int] = None

    def __init__(
        self, vocab_size: int, context_length: int, *, start_id: int, end_id: int, pad_id: int = 0
    ) -> None:
        if context_length < 3:
            raise ValueError(f"context_length={context_length}: expected at least 3 (start, a token, end)")
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.start_id = start_id
        self.end_id = end_id
        self.pad_id = pad_id

    @abc.abstractmethod
    def tokens(self, captions: Iterable[str]) -> list[list[int]]:
        """The ids of each caption, of any length, without start, end and padding."""

    @abc.abstractmethod
    def decode(self, text: np.ndarray) -> list[str]:
        """The captions of int32[B, L], as far as the vocabulary keeps them; for people to read."""

    def pack(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """int32[B, L]: a row is start, the tokens, end and padding; tokens that do not fit are cut off."""
        packed = np.full((len(tokens), self.context_length), self.pad_id, np.int32)
        for row, ids in zip(packed, tokens, strict=True):
            fitting = [self.start_id, *ids[: self.max_tokens], self.end_id]
            row[: len(fitting)] = fitting
        return packed

    @property
    def max_tokens(self) -> int:
        """How many tokens of a caption fit: L − 2."""
        return self.context_length - 2

    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """int32[B, L] of B captions; one that is too long is cut, and keeps its end token."""
        return self.pack(self.tokens(captions))


class Tokenizer(BaseTokenizer):
    """A vocabulary of the library `tokenizers` with a context length.

    Args:
        library: the vocabulary, as the library `tokenizers` holds it. It has a start
            and an end token under one of their usual names; where it has no padding
            token, 0 pads, as in CLIP.
        context_length: L, the tokens of a row, start and end included; at least 3.
        origin: where the vocabulary is from, for errors.

    Raises:
        ValueError: for a context length below 3.
        DataError: if the vocabulary has no start or no end token; it names `origin`.
    """

    def __init__(
        self, library: tokenizers.Tokenizer, context_length: int, origin: str = "the vocabulary"
    ) -> None:
        ids = library.get_vocab()
        super().__init__(
            max(ids.values(), default=-1) + 1,
            context_length,
            start_id=_first_known(ids, _START, origin),
            end_id=_first_known(ids, _END, origin),
            pad_id=next((ids[name] for name in _PAD if name in ids), 0),
        )
        library.no_padding()
        library.no_truncation()
        # A caption that spells a special token is text like any other.
        library.encode_special_tokens = True
        self._library = library
        self.unknown_id = ids.get(getattr(library.model, "unk_token", None) or "")

    def tokens(self, captions: Iterable[str]) -> list[list[int]]:
        """The ids of each caption, of any length, without start, end and padding.

        HTML entities are resolved first, for captions from the web are full of them.
        """
        # One by one: the library would spread a batch over all cores, which other processes use.
        return [
            self._library.encode(html.unescape(html.unescape(caption)), add_special_tokens=False).ids
            for caption in captions
        ]

    def decode(self, text: np.ndarray) -> list[str]:
        """The captions of int32[B, L], as far as the vocabulary keeps them (CLIP's has no capitals)."""
        captions = []
        for row in np.asarray(text).tolist():
            ids = itertools.takewhile(lambda token: token != self.end_id, row)
            kept = [token for token in ids if token != self.start_id]
            captions.append(self._library.decode(kept, skip_special_tokens=False).strip())
        return captions

    def save(self, path: pathlib.Path) -> None:
        """Writes the vocabulary as a JSON file that the spec `file:PATH` reads."""
        self._library.save(str(path))


def load_tokenizer(spec: str, context_length: int) -> BaseTokenizer:
    """Loads a tokenizer.

    Args:
        spec: "clip", "icons", "file:PATH", "hf:FOLDER" and others, or "package.module:function"; see the
            module's docstring.
        context_length: see `BaseTokenizer`.

    Raises:
        DataError: for another spec, or if the file is missing, damaged, or has no
            start or end token, or a user's function fails or makes no tokenizer.
        ValueError: for a context length below 3.
    """
    if spec == "clip":
        return Tokenizer(clip_library(), context_length)
    if spec == "icons":
        return Tokenizer(read_library(FOLDER / "icons.json"), context_length)
    kind, _, path = spec.partition(":")
    if kind == "file" and path:
        library = read_library(pathlib.Path(path).expanduser())
        return Tokenizer(library, context_length, f"the vocabulary {path}")
    if kind in CHECKPOINTS:
        # It is written with what this module has.
        from classact.data.checkpoint_tokenizers import opening

        return opening.load(spec, context_length)
    if is_users(spec):
        with user_code.reported_as(DataError, f"tokenizer {spec!r}"):
            return _users(spec, context_length)
    raise DataError(
        f"unknown tokenizer {spec!r}: expected clip, icons, file:PATH, hf:FOLDER, open_clip, "
        "open_clip:FOLDER, sentencepiece:FILE, or module:function"
    )


def is_users(spec: str) -> bool:
    """Whether a spec names code of a user's."""
    return spec.partition(":")[0] not in ("file", *CHECKPOINTS) and user_code.is_name(spec)


def _users(spec: str, context_length: int) -> BaseTokenizer:
    """What a user's function makes, tried on a caption."""
    try:
        make = user_code.find("tokenizer", spec)
    except user_code.UserCodeError as error:
        raise DataError(str(error)) from error
    made = make(context_length) if callable(make) else make
    if not isinstance(made, BaseTokenizer):
        raise DataError(
            f"tokenizer {spec!r} gave a {type(made).__name__}, expected a data.tokenizer.BaseTokenizer"
        )
    user_code.adopt(made)
    if made.context_length != context_length:
        raise DataError(
            f"tokenizer {spec!r}: context_length={made.context_length}, it was asked for {context_length}"
        )
    text = made.encode(["a photo of a cat"])
    if text.shape != (1, context_length) or not ((text >= 0) & (text < made.vocab_size)).all():
        raise DataError(
            f"tokenizer {spec!r}: encode gives {text.dtype}{list(text.shape)} with ids {text.min()} to "
            f"{text.max()}, expected int32[1, {context_length}] with ids 0 to {made.vocab_size - 1}"
        )
    return made


def train_tokenizer(captions: Iterable[str], vocab_size: int, context_length: int) -> Tokenizer:
    """Trains a byte-pair vocabulary on captions; lower case, and no text is unknown to it.

    Args:
        captions: the corpus.
        vocab_size: at most how many ids; fewer if the corpus has fewer pairs.
        context_length: see `Tokenizer`.

    Raises:
        ValueError: for a vocabulary that cannot hold the 256 bytes and 3 special
            tokens, or a context length below 3.
    """
    special = [_PAD[0], _START[0], _END[0]]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(special) + len(alphabet):
        raise ValueError(f"vocab_size={vocab_size}: expected at least {len(special) + len(alphabet)}")
    library = tokenizers.Tokenizer(models.BPE())
    library.normalizer = _normaliser()
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(captions, trainer)
    return Tokenizer(library, context_length)


def clip_library() -> tokenizers.Tokenizer:
    """CLIP's vocabulary; its ids are bytes, bytes that end a word, merges, start and end, in this order.

    Text is cleaned less thoroughly than by CLIP, which also repairs wrong encodings.
    """
    path = FOLDER / "bpe_simple_vocab_16e6.txt.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            # The file's first line is a comment, and it has more merges than CLIP uses.
            lines = list(itertools.islice(file, 1, 1 + _CLIP_MERGES))
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    merges = [(first, second) for first, second in map(str.split, lines)]
    # The library's characters for the bytes, in CLIP's order: those that print first.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=ord)
    names = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), _START[1], _END[1]]
    library = tokenizers.Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, merges, end_of_word_suffix="</w>")
    )
    library.normalizer = _normaliser()
    words = pre_tokenizers.Split(tokenizers.Regex(_CLIP_WORDS), "removed", invert=True)
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    # `Ġ` is the byte of a space.
    library.decoder = decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel()])
    return library


def _normaliser() -> normalizers.Normalizer:
    """Composed characters, straight quotes, lower case, and single spaces."""
    return normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(tokenizers.Regex("[\u02bc\u2018-\u201b]"), "'"),
            normalizers.Replace(tokenizers.Regex("[\u201c-\u201f]"), '"'),
            normalizers.Lowercase(),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )


def read_library(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Reads a `tokenizer.json`; DataError if it is missing or damaged."""
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    # The library raises plain exceptions.
    except Exception as error:
        raise DataError(f"{path}: not a vocabulary of the library tokenizers ({error})") from error


def _first_known(ids: dict[str, int], names: Sequence[str], origin: str) -> int:
    for name in names:
        if name in ids:
            return ids[name]
    raise DataError(f"{origin} of {len(ids)} tokens has none of {', '.join(names)}: it needs one")
