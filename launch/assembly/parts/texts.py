"""Texts for models that read other tokens than the run's: their tokenizers, and the field that they read."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from classact.data import tokenizer as tokenizer_lib
from classact.experiments import run_config
from classact.experiments.config import ContrastiveConfig, DataSetConfig, ExperimentConfig
from classact.models import registry
from classact.selection import policies

# Of a batch: the tokens of a fixed reference that does not read those of `text`.
REFERENCE_TEXT = "reference_text"


def of_reference(config: ExperimentConfig, data_set: DataSetConfig) -> ContrastiveConfig | None:
    """How a data set's fixed reference reads texts; None if it reads the run's tokens, or no texts.

    Raises:
        ConfigError: if what it is cannot be read.
    """
    own = data_set.reference
    fixed = policies.get(data_set.policy).reference == "fixed"
    if config.task != "contrastive" or not fixed or not own.checkpoint or own.scores:
        return None
    if not run_config.is_there(own.checkpoint):
        return None
    field = f"reference.checkpoint={own.checkpoint!r}"
    theirs = run_config.read_config(own.checkpoint, field)
    found = run_config.texts_of(theirs, config.contrastive, field)
    return found if reads_other(found, config.contrastive) else None


def reads_other(found: ContrastiveConfig, ours: ContrastiveConfig) -> bool:
    """Whether a model reads other tokens than this run's."""
    return (found.tokenizer, found.context_length) != (ours.tokenizer, ours.context_length)


def tokenizer_of(contrastive: ContrastiveConfig) -> tokenizer_lib.BaseTokenizer:
    """Loads the tokenizer of a contrastive task.

    Raises:
        source.DataError: for an unknown or damaged vocabulary.
    """
    return tokenizer_lib.load_tokenizer(contrastive.tokenizer, contrastive.context_length)


def vocabulary(contrastive: ContrastiveConfig) -> tuple[int, int]:
    """How many tokens a tokenizer has, and the one at which a text ends; DataError as `tokenizer_of`."""
    if tokenizer_lib.is_users(contrastive.tokenizer):
        made = tokenizer_of(contrastive)
        return made.vocab_size, made.end_id
    return _vocabulary(contrastive.tokenizer, contrastive.context_length)


@functools.lru_cache(maxsize=8)
def _vocabulary(tokenizer: str, context_length: int) -> tuple[int, int]:
    made = tokenizer_lib.load_tokenizer(tokenizer, context_length)
    return made.vocab_size, made.end_id


def reading(model: registry.Model, field: str) -> registry.Model:
    """A model of images and texts that reads its texts from another field of a batch, if that is there."""

    def apply(
        variables: registry.Variables, batch: Mapping[str, Any], *, train: bool, rng: Any = None
    ) -> tuple[registry.Outputs, Any]:
        if field in batch:
            batch = {**batch, "text": batch[field]}
        return model.apply(variables, batch, train=train, rng=rng)

    return dataclasses.replace(model, apply=apply)
