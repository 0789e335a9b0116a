"""`reference.head=zero_shot`: a classifier out of two towers, and the names of a data set's classes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from classact.data import prompts
from classact.data.source import DataError
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import networks, reference_models, texts
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.assembly.parts.shapes import DataShape
from classact.models import cost, zero_shot_head
from classact.nodes import zero_shot

# Prompts that go through the text tower at once.
_PROMPTS = 256


def variables(
    config: ExperimentConfig, data_set: DataSetConfig, data: DataShape, stored: Mapping[str, Any]
) -> dict[str, Any]:
    """The variables of the reference: the towers' own, and the classes' embeddings.

    They are computed on this process's device, once; all that are computed of the same files are equal
    on machines of one kind.

    Args:
        config: of the run; its `contrastive.templates` are the prompts.
        data_set: whose reference.
        data: the data set, with the classes of the run.
        stored: variables of the two towers.

    Raises:
        source.DataError: if a class has no name, or an embedding is not finite.
    """
    model = networks.reference_towers(config, data_set, data)
    found = reference_models.described(config, data_set, data)

    @jax.jit
    def embed(rows: jax.Array) -> jax.Array:
        return model.apply(stored, {"text": rows}, train=False)[0]["text_embedding"]

    names, templates = _names(data), prompts.templates(config.contrastive.templates)
    encode = texts.tokenizer_of(found.contrastive).encode
    size = min(_PROMPTS, len(names) * len(templates))
    try:
        classes = zero_shot.class_embeddings(embed, encode, names, templates, size)
    except ValueError as error:
        raise DataError(f"{data.name}: {error}") from None
    return zero_shot_head.variables(stored, np.asarray(classes, np.float32))


def check(
    config: ExperimentConfig, data_set: DataSetConfig, data: DataShape, said: FirstLines | None
) -> None:
    """Checks that the classes have names that can be told apart; computes nothing.

    Args:
        config: of the run.
        data_set: whose reference.
        data: the data set, with the classes of the run.
        said: is told how many prompts there are; None: nobody is.

    Raises:
        ConfigError: if they have not, or the tokenizer or the templates cannot be read.
    """
    head = data_set.reference.head
    try:
        names, templates = _names(data), prompts.templates(config.contrastive.templates)
        own = texts.tokenizer_of(reference_models.described(config, data_set, data).contrastive)
        own.encode([prompts.fill(templates[0], names[0])])
    except (DataError, ValueError) as error:
        raise ConfigError(f"reference.head={head!r}: {error}") from None
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"reference.head={head!r}: two classes of {data.name} are called {twice!r}: their texts are equal"
        )
    if said is not None:
        said.say(
            f"the reference tells {data.name}'s {len(names):,} classes by their names, in {len(templates)} "
            "prompts each (contrastive.templates)"
        )


def macs(config: ExperimentConfig, data_set: DataSetConfig, data: DataShape) -> float:
    """What the classes' embeddings cost, in MACs: each name in each prompt, through the text tower."""
    model = networks.reference_towers(config, data_set, data)
    length = reference_models.described(config, data_set, data).contrastive.context_length
    one = cost.forward_cost(model, data.image_shape, "text_embedding", length).macs
    return float(one * data.num_classes * len(prompts.templates(config.contrastive.templates)))


def _names(data: DataShape) -> tuple[str, ...]:
    if data.class_names is None:
        raise DataError(f"{data.name}: its classes have no names, which a text tower could read")
    return data.class_names
