"""Objects of a user's own that are read item by item.

PyTorch's map-style data sets are such objects, and Grain's `MapDataset`.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from classact.data import class_names
from classact.data.image_files import DecodingSource, ImageFiles, RowFraming
from classact.data.samples import evenly
from classact.data.source import Batch, DataError, Source, checked_indices
from classact.data.tables.columns import Chosen, choose
from classact.data.tables.images import ImageValues
from classact.data.tables.options import TableOptions

_PROBED = 16
# A repeated data set of Grain's has more; nothing real has.
_ENDLESS = sys.maxsize // 1000
# The first may be filtered out.
_LOOKED_AT = 100


class _Item(NamedTuple):
    """What is in an item: an image, and the label or caption that belongs to it."""

    image: Any
    told: Any


class ItemSource(DecodingSource):
    """The items of an object, each with an image and a label or a caption.

    An item is a dict, or a tuple of an image and what belongs to it: a text is a caption,
    or a label if the classes have names; a whole number is a label. Images are as
    `images.opened` takes them. What the object says of itself as PyTorch's data sets do is
    used: `classes`, the names of the classes; `targets`, the labels of all items. An item
    that is None, as one that a filter of Grain's takes out, and an OSError of an item count as
    a damaged image; any other error of it ends the run.

    Args:
        name: the source's name, for errors.
        items: an object with `__len__` and `__getitem__`; item i must be the same in every
            process. It is asked by one thread at a time, and may block as `Source.batch` may.
        options: what the spec says; `image`, `label` and `caption` are the keys of dicts.
        hint: how to tell the source a size, for errors.

    Raises:
        DataError: if there are no items, items are of another form, or nothing says how many
            classes there are; or what `ImageFiles` refuses.
    """

    def __init__(self, name: str, items: Any, options: TableOptions, hint: str) -> None:
        self.name = name
        self.num_examples = _length(name, items)
        self._items = items
        self._chosen: Optional[Chosen] = None
        classes = _classes(name, items, options)
        self._learn_fields(options, classes)
        self.num_classes = 0
        if self.captioned:
            self.image_of = np.arange(self.num_examples)
        else:
            self._learn_classes(classes)
        numbers = np.arange(self.num_examples)
        self._values = ImageValues(
            self._fetched, numbers, lambda row: f"{name}, row {row}", "", lambda item: item.image
        )
        probes = evenly(self.num_examples, _PROBED)
        with self._values.held(probes):
            self._images = ImageFiles(
                name,
                self._values,
                options.size,
                options.channels,
                hint,
                self.left_out,
                options.damaged,
                probes,
            )
        self.accepted_damage = options.damaged
        self.image_shape = self._images.shape

    def keep_files(self) -> None:
        """DataError: an object gives images, whatever it has read them from."""
        Source.keep_files(self)

    def framed_batch(self, indices: np.ndarray, framing: Optional[RowFraming] = None) -> Batch:
        """See `augment.augmented.FramedSource`."""
        indices = checked_indices(indices, self.num_examples)
        with self._values.held(indices) as held:
            kept, images = self._images.read(indices, framing)
            ids = indices[kept]
            told = [(held[number].told, number) for number in ids.tolist()]
        if self.captioned:
            captions = np.empty(len(ids), object)
            captions[:] = [self._caption(*each) for each in told]
            return {"id": ids, **images, "caption": captions}
        return {
            "id": ids,
            **images,
            "label": np.array([self._label(*each) for each in told], np.int32),
        }

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`; reads the items, images and all. "" for one that cannot be read."""
        if not self.captioned:
            return super().caption_at(indices)
        captions = []
        for number in checked_indices(indices, self.num_examples).tolist():
            # One after another: thousands of images at once would take gigabytes.
            (item,) = self._fetched([number])
            captions.append("" if isinstance(item, OSError) else self._caption(item.told, number))
            del item
        return captions

    def _fetched(self, numbers: Sequence[int]) -> list[Any]:
        found: list[Any] = []
        for number in numbers:
            try:
                found.append(self._item(number, self._items[number]))
            except OSError as error:
                found.append(error)
        return found

    def _item(self, number: int, value: Any) -> _Item:
        if value is None:
            raise OSError("no item (None)")
        if self._chosen is None:
            if isinstance(value, (tuple, list)) and len(value) == 2:
                return _Item(*value)
        elif isinstance(value, Mapping):
            told = self._chosen.label or self._chosen.caption
            assert told is not None  # `choose` has chosen one of the two.
            missing = {self._chosen.image, told} - value.keys()
            if not missing:
                return _Item(value[self._chosen.image], value[told])
            raise DataError(
                f"{self.name}: item {number} lacks {', '.join(sorted(missing))}; it has {_keys(value)}"
            )
        raise DataError(f"{self.name}: item {number} is {_form(value)}, unlike the first")

    def _learn_fields(self, options: TableOptions, classes: Optional[class_names.GivenClasses]) -> None:
        """Looks at the first item: which fields it has, and whether it has a caption or a label."""
        try:
            first = next(
                value
                for value in map(self._items.__getitem__, range(min(_LOOKED_AT, self.num_examples)))
                if value is not None
            )
        except StopIteration:
            raise DataError(
                f"{self.name}: the first items are all None, expected images with labels or captions"
            ) from None
        except OSError as error:
            raise DataError(
                f"{self.name}: the first item, which shows what is in all, cannot be read ({error})"
            ) from error
        if isinstance(first, Mapping):
            given = {"image": options.image, "label": options.label, "caption": options.caption}
            self._chosen = choose(list(map(str, first)), given, {}, f"{self.name}, the first item")
            self.captioned = self._chosen.caption is not None
        elif isinstance(first, (tuple, list)) and len(first) == 2:
            named = classes is not None and classes.names is not None
            self.captioned = isinstance(first[1], str) and not named
        else:
            raise DataError(
                f"{self.name}: the first item is {_form(first)}, expected a dict with an image and a "
                "label or a caption, or a tuple (image, label) or (image, caption)"
            )

    def _learn_classes(self, classes: Optional[class_names.GivenClasses]) -> None:
        targets = getattr(self._items, "targets", None)
        if targets is not None and len(targets) == self.num_examples:
            values = targets.tolist() if hasattr(targets, "tolist") else list(targets)
            labels = class_names.numbered(values, f"{self.name}, its `targets`", classes)
            self.label_of, self.num_classes, self.class_names = labels
            missing = np.flatnonzero(labels.numbers < 0)
            if missing.size:
                raise DataError(
                    f"{self.name}: item {missing[0]} has no label in its `targets`, and {missing.size - 1:,} "
                    "others: leave them out"
                )
        elif classes is not None:
            self.num_classes, self.class_names = classes.number, classes.names
        else:
            raise DataError(
                f"{self.name}: how many classes are there? say ?classes=NUMBER, or a file of their names; "
                "or give the object `classes`, a list of names"
            )
        self._number = {name: number for number, name in enumerate(self.class_names or ())}

    def _label(self, value: Any, number: int) -> int:
        label = -1
        if isinstance(value, str):
            label = self._number.get(value, -1)
        elif hasattr(value, "__index__") or getattr(value, "shape", None) == ():
            label = int(value)
        if not 0 <= label < self.num_classes:
            names = f", or one of {', '.join(list(self._number)[:3])}, …" if self._number else ""
            raise DataError(
                f"{self.name}: item {number} has the label {value!r}, "
                f"expected 0 to {self.num_classes - 1}{names}"
            )
        return label

    def _caption(self, value: Any, number: int) -> str:
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if not isinstance(value, str):
            raise DataError(
                f"{self.name}: the caption of item {number} is a {type(value).__name__}, expected one text: "
                "an image with several captions is as many items"
            )
        return value


def _length(name: str, items: Any) -> int:
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise DataError(
            f"{name}: a {type(items).__name__}, expected an object with __len__ and __getitem__, whose items "
            "can be read in any order"
        )
    length = len(items)
    if not 0 < length < _ENDLESS:
        raise DataError(f"{name}: {length:,} items, expected at least one, and an end (without repeat)")
    return length


def _classes(name: str, items: Any, options: TableOptions) -> Optional[class_names.GivenClasses]:
    """What labels mean: what the spec says, or the object."""
    names = getattr(items, "classes", None)
    if options.classes is not None or names is None:
        return options.classes
    if isinstance(names, str) or not all(isinstance(each, str) for each in names) or not len(names):
        raise DataError(f"{name}: its `classes` are {names!r}, expected a list of names")
    return class_names.GivenClasses(len(names), tuple(names), "its `classes`")


def _form(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {_keys(value)}"
    several = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"a {type(value).__name__}{several}"


def _keys(value: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, value)) or "nothing"
