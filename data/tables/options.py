"""The options that specs of all tables take."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple, Optional

from classact.data.class_names import GivenClasses, classes_option
from classact.data.image_files import size_and_channels
from classact.data.options import share_option
from classact.data.registry import Opener, register_source
from classact.data.source import Source


class TableOptions(NamedTuple):
    """What a spec says, checked.

    Attributes:
        image: the column, or the key of an item, that holds the image; None: not said.
        label: of the label.
        caption: of the caption.
        classes: what labels mean.
        size: the side of the square images in pixels, or None to take them as they are.
        channels: 3 for RGB or 1 for grey images.
        damaged: the share of the images that may be damaged.
    """

    image: Optional[str]
    label: Optional[str]
    caption: Optional[str]
    classes: Optional[GivenClasses]
    size: Optional[int]
    channels: int
    damaged: float


def table_options(
    source: str,
    *,
    image: Optional[str] = None,
    label: Optional[str] = None,
    caption: Optional[str] = None,
    classes: Optional[str] = None,
    size: Optional[str] = None,
    channels: str = "3",
    damaged: str = "0.01",
) -> TableOptions:
    """Checks what a spec says; DataError for a value that an option cannot have."""
    return TableOptions(
        image or None,
        label or None,
        caption or None,
        classes_option(source, classes),
        *size_and_channels(source, size, channels),
        share_option(source, "damaged", damaged),
    )


_SHARED = [
    parameter
    for parameter in inspect.signature(table_options).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
]


def register_table(name: str) -> Callable[[Callable[..., Source]], Opener]:
    """As `register_source`, for a function whose `options` are what the specs of all tables take.

    Its other keyword-only parameters are options of its own.
    """

    def decorator(opener: Callable[..., Source]) -> Opener:
        @functools.wraps(opener)
        def opened(argument: str, split: str, /, **given: str) -> Source:
            shared = {item.name: given.pop(item.name) for item in _SHARED if item.name in given}
            return opener(argument, split, options=table_options(name, **shared), **given)

        # By which the registry knows what a spec may say.
        taken = inspect.signature(opener)
        own = [parameter for parameter in taken.parameters.values() if parameter.name != "options"]
        opened.__signature__ = taken.replace(parameters=[*own, *_SHARED])  # type: ignore[attr-defined]
        return register_source(name)(opened)

    return decorator
