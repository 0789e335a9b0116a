"""Loads a checkpoint's tokenizer by its spec.

| spec | what it holds |
|---|---|
| `hf:FOLDER` | `tokenizer.json`; `vocab.json` and `merges.txt` (CLIP); `spiece.model` (SigLIP) |
| `open_clip:FOLDER` | `tokenizer.json`, with how `open_clip_config.json` cleans texts |
| `open_clip` | CLIP's 49,408 byte pairs, with texts cleaned as by CLIP, encodings repaired |
| `sentencepiece:FILE` | a vocabulary of sentencepiece, as big_vision reads SigLIP's |

What cleans texts, and what reads sentencepiece's files, needs `pip install classact[texts]`.
"""

import pathlib

from classact.data.checkpoint_tokenizers import hugging_face, open_clip, sentences
from classact.data.source import DataError
from classact.data.tokenizer import BaseTokenizer


def load(spec: str, context_length: int) -> BaseTokenizer:
    """Loads a tokenizer by one of the specs above.

    Raises:
        DataError: if files are missing or damaged, or a library is not installed.
        ValueError: for a context length below 3.
    """
    kind, _, path = spec.partition(":")
    if not path:
        return open_clip.own(context_length)
    place = pathlib.Path(path).expanduser()
    if not place.exists():
        raise DataError(f"tokenizer {spec!r}: {place}: no such file or folder")
    if kind == "sentencepiece":
        return sentences.big_vision(place, context_length)
    return hugging_face.load(place, context_length) if kind == "hf" else open_clip.load(place, context_length)
