"""`icons`: the embedded data set of 32×32 icons, whose class is the icon's name.

`icons/` holds it as lossless WebP contact sheets, tiles in reading order, and
`index.npz` with the class and the icon set of each tile; `build_icons` writes
them and says how the icons were chosen; `names.txt.xz` has the name of each tile in its
set, from which `icon_pairs` makes captions. Whole icon sets are held out for the
eval split. `icons/LICENSES.md` lists every set with its author and licence.
"""

import functools
import lzma
import pathlib
from collections.abc import Sequence
from typing import Optional

import numpy as np
from PIL import Image

from classact.data import digests
from classact.data.npz import read_npz
from classact.data.options import no_argument, positive_option
from classact.data.registry import register_source
from classact.data.source import Batch, DataError, Source, checked_indices

FOLDER = pathlib.Path(__file__).parent / "icons"
_NAMES = "names.txt.xz"
SIZE = 32
COLUMNS = 64
TILES_PER_SHEET = 8192
# Channel values are quantised to this many levels, 0 to 255.
LEVELS = 16
# In this order the tiles are numbered: an icon's id. Grey and coloured icons
# are kept apart because grey ones are a third of the size, on disk and in memory.
GROUPS = ("train-grey", "train-colour", "eval-grey", "eval-colour")


@register_source("icons")
def open_icons(argument: str, split: str, *, classes: Optional[str] = None) -> Source:
    """`icons` or `icons?classes=N`: 32×32 RGB icons; N keeps the N most frequent classes.

    Raises:
        DataError: for a bad N, or if the files are damaged.
    """
    no_argument("icons", argument)
    return IconSource(split, None if classes is None else positive_option("icons", "classes", classes))


class IconSource(Source):
    """One split of the embedded icons; classes are numbered from the most frequent one.

    It holds 1 KB per grey and 3 KB per coloured icon.

    Args:
        split: "train" or "eval".
        classes: how many of the most frequent classes to keep; all if None.
        folder: where the sheets and the index are.

    Attributes:
        files: the index and this split's sheets.

    Raises:
        DataError: if there are fewer classes, or a file is missing or damaged.
    """

    def __init__(self, split: str, classes: Optional[int] = None, folder: pathlib.Path = FOLDER) -> None:
        index = read_index(folder)
        names = index["class_names"]
        if classes is not None and classes > len(names):
            raise DataError(f"data source 'icons': classes={classes}, expected at most {len(names)}")
        self.name = "icons"
        self.image_shape = (SIZE, SIZE, 3)
        self.num_classes = len(names) if classes is None else classes
        self.class_names = tuple(str(name) for name in names[: self.num_classes])
        self._grey, grey_ids, grey_labels = _load(folder, index, f"{split}-grey", self.num_classes)
        self._colour, colour_ids, colour_labels = _load(folder, index, f"{split}-colour", self.num_classes)
        self._ids = np.concatenate([grey_ids, colour_ids])
        self._labels = np.concatenate([grey_labels, colour_labels])
        self.num_examples = len(self._ids)
        self.label_of = self._labels
        self.files = [folder / "index.npz", *sorted(folder.glob(f"{split}-*.webp"))]

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of the sheets' names, sizes and a few pieces."""
        return digests.of_places(digests.places_of(self.files))

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; always as many rows as indices."""
        indices = checked_indices(indices, self.num_examples)
        grey = indices < len(self._grey)
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        images[grey] = self._grey[indices[grey]]
        images[~grey] = self._colour[indices[~grey] - len(self._grey)]
        return {"id": self._ids[indices], "image": images, "label": self._labels[indices]}

    def ids(self, indices: np.ndarray) -> np.ndarray:
        """See `Source.ids`."""
        return self._ids[checked_indices(indices, self.num_examples)]


def read_index(folder: pathlib.Path = FOLDER) -> dict[str, np.ndarray]:
    """Reads what is known of the tiles.

    Returns:
        `class_names: str[K]` from the most frequent, `icon_sets: str[S]`, and for
        each of `GROUPS` `<group>/label: uint16[N]` and `<group>/icon_set: uint8[N]`.

    Raises:
        DataError: if the file is missing or damaged.
    """
    fields = [
        "class_names",
        "icon_sets",
        *(f"{group}/{kind}" for group in GROUPS for kind in ("label", "icon_set")),
    ]
    return read_npz(folder / "index.npz", fields)


def read_names(folder: pathlib.Path = FOLDER) -> list[str]:
    """Reads each icon's name in its set, such as "clipboard-list-outline", by id.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path = folder / _NAMES
    try:
        return lzma.decompress(path.read_bytes()).decode().splitlines()
    except (OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def write_names(names: Sequence[str], folder: pathlib.Path) -> None:
    """Writes what `read_names` reads."""
    text = "".join(f"{name}\n" for name in names)
    (folder / _NAMES).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def sheet_paths(folder: pathlib.Path, group: str, tiles: int) -> list[pathlib.Path]:
    """The files of a group's contact sheets, in order; each but the last holds `TILES_PER_SHEET`."""
    return [folder / f"{group}-{sheet}.webp" for sheet in range(-(-tiles // TILES_PER_SHEET))]


def _load(
    folder: pathlib.Path, index: dict[str, np.ndarray], group: str, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads a group's icons of the first classes: uint8[N, 32, 32, 1 or 3], ids int64[N], labels int32[N]."""
    labels = index[f"{group}/label"]
    kept = labels < num_classes
    channels = 1 if group.endswith("grey") else 3
    images = np.empty((np.count_nonzero(kept), SIZE, SIZE, channels), np.uint8)
    filled = 0
    for sheet, path in enumerate(sheet_paths(folder, group, len(labels))):
        wanted = kept[sheet * TILES_PER_SHEET : (sheet + 1) * TILES_PER_SHEET]
        part = _read_sheet(path, channels, len(wanted))[wanted]
        images[filled : filled + len(part)] = part
        filled += len(part)
    first_id = sum(len(index[f"{earlier}/label"]) for earlier in GROUPS[: GROUPS.index(group)])
    return images, first_id + np.flatnonzero(kept), labels[kept].astype(np.int32)


def _read_sheet(path: pathlib.Path, channels: int, tiles: int) -> np.ndarray:
    """uint8[tiles, 32, 32, channels] of one contact sheet."""
    try:
        with Image.open(path, formats=("WEBP",)) as image:
            # One channel of a grey sheet is enough, and four times as fast to copy.
            pixels = np.asarray(image.getchannel(0) if channels == 1 else image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    rows = -(-tiles // COLUMNS)
    if pixels.shape[:2] != (rows * SIZE, COLUMNS * SIZE):
        raise DataError(f"{path}: {pixels.shape[:2]} pixels, expected {(rows * SIZE, COLUMNS * SIZE)}")
    return (
        pixels.reshape(rows, SIZE, COLUMNS, SIZE, channels)
        .swapaxes(1, 2)
        .reshape(-1, SIZE, SIZE, channels)[:tiles]
    )
