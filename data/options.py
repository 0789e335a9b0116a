"""Checks of what a spec says behind its source's name."""

from classact.data.source import DataError


def positive_option(source: str, name: str, value: str) -> int:
    """Reads the value of a spec's option as a number; DataError unless it is a whole number above 0."""
    if not value.isdecimal() or int(value) < 1:
        raise DataError(f"data source {source!r}: {name}={value}, expected a whole number above 0")
    return int(value)


def share_option(source: str, name: str, value: str) -> float:
    """Reads the value of a spec's option as a share; DataError unless it is a number from 0 to below 1."""
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise DataError(f"data source {source!r}: {name}={value}, expected a share from 0 to below 1")
    return share


def no_argument(name: str, argument: str) -> None:
    """DataError unless the spec has nothing behind the colon."""
    if argument:
        raise DataError(f"data source {name!r} takes no argument, got {argument!r}")
