"""Names that every process understands, in place of those that only this one has registered."""

import dataclasses

from classact.data import specs
from classact.data.source import DataError
from classact.experiments.config import ConfigError, ModelConfig, ReferenceConfig
from classact.models import registry


def source_spec(field: str, spec: str) -> str:
    """A source's spec, see `specs.importable_spec`.

    Raises:
        ConfigError: naming the field, if other processes cannot find the source.
    """
    try:
        return specs.importable_spec(spec)
    except DataError as error:
        raise ConfigError(f"{field}={spec!r}: {error}") from None


def model[Config: ModelConfig | ReferenceConfig](role: str, config: Config) -> Config:
    """A model whose name is `registry.importable_name`'s.

    Raises:
        ConfigError: naming the field, if other processes cannot find the model.
    """
    try:
        return dataclasses.replace(config, model=registry.importable_name(config.model))
    except ValueError as error:
        raise ConfigError(f"{role}.model={config.model!r}: {error}") from None
