"""The error of a configuration that cannot be run."""

from typing import Any


class ConfigError(ValueError):
    """A field has a value that cannot be run; the message says what can."""


def require(condition: bool, field: str, value: Any, accepted: str) -> None:
    """Raises a ConfigError that names a field, its value and what is accepted, unless a condition holds."""
    if not condition:
        raise ConfigError(f"{field}={value!r}: must be {accepted}")
