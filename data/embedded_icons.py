"""`icons`: the embedded data set of 32×32 icons, whose class is the icon's name.

`icons/` holds it as lossless WebP contact sheets, tiles in reading order, and
`index.npz` with the class and the icon set of each tile; `build_icons` writes
them and says how the icons were chosen; `names.txt.xz` has the name of each tile in its
set, from which `icon_pairs` makes captions. Whole icon sets are held out for the
eval split. `icons/LICENSES.md` lists every set with its author and licence.
"""

import contextlib
import dataclasses
import functools
import lzma
import pathlib
import threading
from collections.abc import Iterator, Sequence
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

    A sheet is decoded when one of its icons is asked for, once in a process, and held: 1 KB
    per grey and 3 KB per coloured icon.

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
        sheets = [
            sheet
            for group in (f"{split}-grey", f"{split}-colour")
            for sheet in _sheets(folder, index, group, self.num_classes)
        ]
        self._sheets = sheets
        # The index after each sheet's last icon.
        self._ends = np.cumsum([len(sheet.ids) for sheet in sheets])
        self._ids = np.concatenate([sheet.ids for sheet in sheets])
        self._labels = np.concatenate([sheet.labels for sheet in sheets])
        self.num_examples = len(self._ids)
        self.label_of = self._labels
        self.files = [folder / "index.npz", *sorted(sheet.path for sheet in sheets)]

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of the sheets' names, sizes and a few pieces."""
        return digests.of_places(digests.places_of(self.files))

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; always as many rows as indices."""
        indices = checked_indices(indices, self.num_examples)
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        sheet_of = np.searchsorted(self._ends, indices, side="right")
        for number in np.unique(sheet_of):
            rows = np.flatnonzero(sheet_of == number)
            sheet = self._sheets[number]
            images[rows] = sheet.pixels()[indices[rows] - (self._ends[number] - len(sheet.ids))]
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


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """The icons of one contact sheet that a source has.

    Attributes:
        path: of the file.
        channels: 1 of grey ones, 3 of coloured ones.
        tiles: int64[N], where they are in it.
        num_tiles: how many it holds.
        ids, labels: int64[N] and int32[N].
    """

    path: pathlib.Path
    channels: int
    tiles: np.ndarray
    num_tiles: int
    ids: np.ndarray
    labels: np.ndarray

    def pixels(self) -> np.ndarray:
        """uint8[N, 32, 32, 1 or 3]; all sources of a process share them."""
        key = self.path, len(self.tiles)  # Those of the first classes.
        with _DECODING:
            if key not in _DECODED:
                _DECODED[key] = _read_sheet(self.path, self.channels, self.num_tiles)[self.tiles]
            return _DECODED[key]


_DECODED: dict[tuple[pathlib.Path, int], np.ndarray] = {}
_DECODING = threading.Lock()


def _sheets(folder: pathlib.Path, index: dict[str, np.ndarray], group: str, num_classes: int) -> list[_Sheet]:
    """Finds a group's icons of the first classes, and looks at the heads of their files."""
    labels = index[f"{group}/label"]
    channels = 1 if group.endswith("grey") else 3
    first = sum(len(index[f"{earlier}/label"]) for earlier in GROUPS[: GROUPS.index(group)])
    found = []
    for number, path in enumerate(sheet_paths(folder, group, len(labels))):
        own = labels[number * TILES_PER_SHEET : (number + 1) * TILES_PER_SHEET]
        tiles = np.flatnonzero(own < num_classes)
        with _open_sheet(path, len(own)):
            found.append(_Sheet(path, channels, tiles, len(own), first + tiles, own[tiles].astype(np.int32)))
        first += len(own)
    return found


def _read_sheet(path: pathlib.Path, channels: int, tiles: int) -> np.ndarray:
    """uint8[tiles, 32, 32, channels] of one contact sheet."""
    with _open_sheet(path, tiles) as image:
        # One channel of a grey sheet is enough, and four times as fast to copy.
        pixels = np.asarray(image.getchannel(0) if channels == 1 else image.convert("RGB"))
    rows = -(-tiles // COLUMNS)
    return (
        pixels.reshape(rows, SIZE, COLUMNS, SIZE, channels)
        .swapaxes(1, 2)
        .reshape(-1, SIZE, SIZE, channels)[:tiles]
    )


@contextlib.contextmanager
def _open_sheet(path: pathlib.Path, tiles: int) -> Iterator[Image.Image]:
    """Opens a contact sheet, which decodes none of it yet, and checks its size."""
    expected = (COLUMNS * SIZE, -(-tiles // COLUMNS) * SIZE)
    try:
        with Image.open(path, formats=("WEBP",)) as image:
            if image.size != expected:
                raise ValueError(f"{image.size} pixels, expected {expected}")
            yield image
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
