"""What a run says of its captions before it starts: how many its tokenizer cuts or does not know."""

import numpy as np

from classact.data import captions
from classact.launch.assembly.parts.first_lines import FirstLines

# Enough to tell a share of 1 %, and read in well under a second.
_SAMPLE = 1_000
# From this share on, a user should act.
_MANY = 0.01


def say_what_is_cut(source: captions.Tokenized, said: FirstLines) -> None:
    """Says which share of the captions is cut or has unknown tokens, by a sample of 1,000.

    Reads no image; the sample is the same in every run.
    """
    texts, of = _sample(source)
    tokenizer = source.tokenizer
    tokens = tokenizer.tokens(texts)
    cut = sum(len(ids) > tokenizer.max_tokens for ids in tokens)
    unknown = sum(tokenizer.unknown_id in ids for ids in tokens) if tokenizer.unknown_id is not None else 0
    longest = max(len(ids) for ids in tokens)
    told = (
        f"{source.name}: {_share(cut, tokens)} of {of} are longer than {tokenizer.max_tokens} tokens and are "
        f"cut (context_length={tokenizer.context_length}, the longest has {longest}), "
        f"{_share(unknown, tokens)} have unknown tokens"
    )
    if cut > _MANY * len(tokens):
        said.warn(f"{told}; --config.contrastive.context_length={longest + 2} would keep all of them")
    elif unknown > _MANY * len(tokens):
        said.warn(f"{told}; --config.contrastive.tokenizer names another vocabulary, 'clip' knows all texts")
    else:
        said.say(told)


def _sample(source: captions.Tokenized) -> tuple[list[str], str]:
    if isinstance(source.source, captions.LabelsAsText):
        return source.source.texts, "the captions made of class names"
    count = source.num_examples
    if count <= _SAMPLE:
        return source.caption_at(np.arange(count)), f"the {count:,} captions"
    chosen = np.random.default_rng(0xCA97).choice(count, _SAMPLE, replace=False)
    return source.caption_at(np.sort(chosen)), f"{_SAMPLE:,} captions drawn from {count:,}"


def _share(part: int, whole: list[list[int]]) -> str:
    return f"{100 * part / len(whole):.1f} %"
