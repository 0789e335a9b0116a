"""The options that specs of all tables take."""

from typing import NamedTuple, Optional

from classact.data.class_names import GivenClasses, classes_option
from classact.data.image_files import size_and_channels
from classact.data.options import share_option


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
    image: Optional[str],
    label: Optional[str],
    caption: Optional[str],
    classes: Optional[str],
    size: Optional[str],
    channels: str,
    damaged: str,
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
