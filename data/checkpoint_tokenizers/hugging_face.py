"""Tokenizers of transformers, by the files that it saves."""

import itertools
import pathlib
from collections.abc import Callable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from classact.data.checkpoint_tokenizers import sentences
from classact.data.checkpoint_tokenizers.rows import CheckpointTokenizer, read_json
from classact.data.source import DataError
from classact.data.tokenizer import read_library

_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def load(folder: pathlib.Path, context_length: int) -> CheckpointTokenizer:
    """A folder's tokenizer, of the class that `tokenizer_config.json` says."""
    own_class = str(read_json(folder / "tokenizer_config.json").get("tokenizer_class", ""))
    if (folder / "spiece.model").exists() and (
        own_class.startswith("Siglip") or not (folder / "tokenizer.json").exists()
    ):
        return sentences.siglip(folder / "spiece.model", context_length)
    if (folder / "tokenizer.json").exists():
        found = read_library(folder / "tokenizer.json")
        if own_class.startswith("Siglip2Tokenizer"):
            # It has Gemma's vocabulary, and was trained with small letters.
            own = [] if found.normalizer is None else [found.normalizer]
            found.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        found = _clip(folder)
    else:
        raise DataError(
            f"{folder}: no tokenizer: expected tokenizer.json, vocab.json and merges.txt, or spiece.model"
        )
    return of_library(folder, found, context_length)


def _clip(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """CLIP's as transformers makes it of its vocabulary and merges."""
    try:
        model = models.BPE.from_file(
            str(folder / "vocab.json"),
            str(folder / "merges.txt"),
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    # The library raises plain exceptions.
    except Exception as error:
        raise DataError(f"{folder}: vocab.json and merges.txt are none of CLIP's ({error})") from error
    library = tokenizers.Tokenizer(model)
    special = ("<|startoftext|>", "<|endoftext|>")
    start, end = (library.token_to_id(name) for name in special)
    if start is None or end is None:
        raise DataError(f"{folder}: vocab.json has no {' and '.join(special)}")
    library.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=name == special[0]) for name in special]
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(tokenizers.Regex(_CLIP_WORDS), "removed", invert=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    library.decoder = decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel()])
    library.post_processor = processors.RobertaProcessing(
        (special[1], end), (special[0], start), trim_offsets=False, add_prefix_space=False
    )
    return library


def of_library(
    folder: pathlib.Path,
    library: tokenizers.Tokenizer,
    context_length: int,
    clean: Callable[[str], str] = str,
) -> CheckpointTokenizer:
    """A vocabulary of the library `tokenizers`, with the padding that the files beside it say."""
    library.no_padding()
    library.no_truncation()
    said = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    pad = said.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    pad_id = library.token_to_id(pad) if isinstance(pad, str) else None
    if pad_id is None and pad is None and library.token_to_id("<|startoftext|>") is not None:
        # transformers' default for CLIP.
        pad_id = library.token_to_id("<|endoftext|>")
    if pad_id is None:
        raise DataError(f"{folder}: tokenizer_config.json names no pad_token, which fills texts up")
    # What the post-processor adds around a text, whatever the text.
    around = library.encode("a", add_special_tokens=True)
    added = list(zip(around.ids, around.special_tokens_mask, strict=True))
    start = tuple(token for token, _ in itertools.takewhile(lambda item: item[1], added))
    end = tuple(token for token, _ in itertools.takewhile(lambda item: item[1], reversed(added)))[::-1]

    def ids(caption: str) -> list[int]:
        # One by one: the library would spread a batch over all cores, which other processes use.
        return list(library.encode(clean(caption), add_special_tokens=False).ids)

    return CheckpointTokenizer(
        ids,
        max(library.get_vocab().values()) + 1,
        context_length,
        start,
        end,
        pad_id,
        lambda found: str(library.decode(found, skip_special_tokens=False)).strip(),
        said.get("padding_side") == "left",
    )
