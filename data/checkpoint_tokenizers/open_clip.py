"""Tokenizers of open_clip: CLIP's own, and vocabularies of others with its cleaning."""

import html
import itertools
import pathlib
import string
from collections.abc import Callable

from tokenizers import pre_tokenizers

from classact.data.checkpoint_tokenizers import hugging_face
from classact.data.checkpoint_tokenizers.rows import CheckpointTokenizer, group, package, read_json
from classact.data.source import DataError
from classact.data.tokenizer import clip_library, read_library

# In a text these are tokens, wherever a word could begin.
_SPECIAL = {"<start_of_text>": 49_406, "<end_of_text>": 49_407}
_WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def own(context_length: int) -> CheckpointTokenizer:
    """CLIP's 49,408 byte pairs; texts are cleaned as by OpenAI and open_clip."""
    clean = _cleaned("lower")
    # What is a letter differs between versions of Unicode: so words are found with open_clip's own library.
    words = package("regex").compile(_WORDS, package("regex").IGNORECASE)
    library = clip_library()
    library.normalizer = None
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def of_words(found: list[str]) -> list[int]:
        return list(library.encode(found, is_pretokenized=True, add_special_tokens=False).ids)

    def ids(caption: str) -> list[int]:
        text = clean(caption)
        found = words.findall(text)
        if not any(special in text for special in _SPECIAL):
            return of_words(found)
        numbers = ([_SPECIAL[word]] if word in _SPECIAL else of_words([word]) for word in found)
        return list(itertools.chain.from_iterable(numbers))

    start, end = _SPECIAL.values()
    return CheckpointTokenizer(
        ids, end + 1, context_length, (start,), (end,), 0, lambda found: str(library.decode(found)).strip()
    )


def load(folder: pathlib.Path, context_length: int) -> CheckpointTokenizer:
    """A folder's `tokenizer.json`, with the cleaning that `open_clip_config.json` says."""
    texts = group(read_json(folder / "open_clip_config.json").get("model_cfg")).get("text_cfg")
    settings = group(group(texts).get("tokenizer_kwargs"))
    if settings.get("strip_sep_token") or settings.get("tokenizer_mode"):
        raise DataError(f"{folder}: tokenizer_kwargs={settings}: expected `clean` alone")
    clean = str(settings.get("clean", "whitespace"))
    return hugging_face.of_library(
        folder, read_library(folder / "tokenizer.json"), context_length, _cleaned(clean)
    )


def _cleaned(kind: str) -> Callable[[str], str]:
    """How open_clip cleans a text: `kind` is "lower", "whitespace" or "canonicalize"."""
    ftfy = package("ftfy")

    def basic(text: str) -> str:
        return html.unescape(html.unescape(ftfy.fix_text(text))).strip()

    by_kind: dict[str, Callable[[str], str]] = {
        "lower": lambda text: " ".join(basic(text).split()).lower(),
        "whitespace": lambda text: " ".join(basic(text).split()),
        "canonicalize": lambda text: _canonical(basic(text)),
    }
    if kind not in by_kind:
        raise DataError(f"tokenizer_kwargs: clean={kind!r}: expected one of {', '.join(by_kind)}")
    return by_kind[kind]


def _canonical(text: str) -> str:
    return " ".join(text.replace("_", " ").translate(_NO_PUNCTUATION).lower().split())
