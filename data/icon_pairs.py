"""`icon_pairs`: the embedded icons with captions, for image–text learning.

The noisy, web-like captions are the names that the icons' authors gave them, as
words ("clipboard list outline"): they mix what is drawn with style, sizes and
numbers, and one drawing has other names in other sets. The clean subset is curated
by consensus: one icon a set, the one with the shortest name, of each class that at
least `CLEAN_SETS` sets have, and its caption is the class's name alone
("clipboard list"). Its images are a part of the noisy ones.

Train and eval are those of `icons`: whole icon sets are held out, and an icon has
the same id in both sources.
"""

import functools
import pathlib

import numpy as np

from classact.data import digests
from classact.data.captions import class_text
from classact.data.embedded_icons import FOLDER, GROUPS, IconSource, read_index, read_names
from classact.data.options import no_argument
from classact.data.registry import register_source
from classact.data.source import Batch, DataError, Source, checked_indices
from classact.data.views import Subset

CLEAN_SETS = 10
SUBSETS = ("noisy", "clean")


@register_source("icon_pairs")
def open_icon_pairs(argument: str, split: str, *, subset: str = "noisy") -> Source:
    """`icon_pairs` or `icon_pairs?subset=clean`: 32×32 RGB icons with one caption each.

    Raises:
        DataError: for another subset, or if the files are damaged.
    """
    no_argument("icon_pairs", argument)
    if subset not in SUBSETS:
        raise DataError(f"data source 'icon_pairs': subset={subset}, expected {' or '.join(SUBSETS)}")
    pairs = IconPairs(split, clean=subset == "clean")
    return Subset(pairs, _clean_indices(pairs)) if subset == "clean" else pairs


class IconPairs(Source):
    """One split of the embedded icons with captions; in memory as `IconSource` is.

    Args:
        split: "train" or "eval".
        clean: whether the caption is the class's name instead of the icon's.
        folder: where sheets, index and names are.

    Raises:
        DataError: if a file is missing or damaged.
    """

    def __init__(self, split: str, clean: bool = False, folder: pathlib.Path = FOLDER) -> None:
        self._icons = IconSource(split, folder=folder)
        self.name = "icon_pairs"
        self.num_examples = self._icons.num_examples
        self.image_shape = self._icons.image_shape
        self.num_classes = 0
        self.captioned = True
        self.image_of = self._icons.ids(np.arange(self.num_examples))
        index, names = read_index(folder), read_names(folder)
        labels = np.concatenate([index[f"{group}/label"] for group in GROUPS])
        if len(names) != len(labels):
            raise DataError(f"{folder}: {len(names)} names for {len(labels)} icons")
        self.icon_sets = np.concatenate([index[f"{group}/icon_set"] for group in GROUPS])[self.image_of]
        self.labels = labels[self.image_of]
        self.full_names = [names[icon] for icon in self.image_of]
        self._captions = np.empty(self.num_examples, object)
        classes = index["class_names"]
        self._captions[:] = [
            class_text(str(classes[label]) if clean else name)
            for label, name in zip(self.labels, self.full_names, strict=True)
        ]

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of the sheets' names, sizes and a few pieces, and of captions."""
        return digests.of_places(digests.places_of(self._icons.files), self._captions)

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; always as many rows as indices."""
        batch = self._icons.batch(indices)
        return {"id": batch["id"], "image": batch["image"], "caption": self._captions[indices]}

    def ids(self, indices: np.ndarray) -> np.ndarray:
        """See `Source.ids`."""
        return self._icons.ids(indices)

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        return self._captions[checked_indices(indices, self.num_examples)].tolist()


def _clean_indices(pairs: IconPairs) -> np.ndarray:
    """Of each class and set of a split the icon with the shortest name, if enough sets have the class."""
    index = read_index()
    labels = np.concatenate([index[f"{group}/label"] for group in GROUPS]).astype(np.int64)
    icon_sets = np.concatenate([index[f"{group}/icon_set"] for group in GROUPS]).astype(np.int64)
    num_sets = len(index["icon_sets"])
    sets_of_class = np.bincount(np.unique(labels * num_sets + icon_sets) // num_sets)
    drawing = pairs.labels.astype(np.int64) * num_sets + pairs.icon_sets
    order = np.lexsort(([len(name) for name in pairs.full_names], drawing))
    plainest = order[np.unique(drawing[order], return_index=True)[1]]
    return np.sort(plainest[sets_of_class[pairs.labels[plainest]] >= CLEAN_SETS])
