"""A user's source, whose promises are checked as it is read.

What does not hold would otherwise show far away: in the replay's records, in the
middle of a model, or as a metric that is silently of something else.
"""

from typing import Any

import numpy as np

from classact import user_code
from classact.data.source import Batch, DataError, Source
from classact.data.views import SourceView

_TYPES = {"id": "int64", "image": "uint8", "label": "int32", "caption": "object"}
# Of what was opened, how many examples are read to try it.
_FEW = 2


def checked(source: Any, name: str) -> Source:
    """Checks what a user's function has opened, reads two examples, and watches the later ones.

    Args:
        source: what was opened.
        name: its spec, for errors.

    Returns:
        A view that checks each batch: DataError for one that breaks the contract of
        `Source`.

    Raises:
        DataError: if it is no source, lacks an attribute, or its first examples are
            not what it says.
    """
    if not isinstance(source, Source):
        found = type(source).__name__
        raise DataError(f"data source {name!r} opened a {found}, expected a data.source.Source")
    user_code.adopt(source)
    _check_attributes(source, name)
    source.name = name
    view = _Checked(source)
    view.batch(np.arange(min(_FEW, source.num_examples)))
    return view


def _check_attributes(source: Source, name: str) -> None:
    def refuse(attribute: str, value: Any, accepted: str) -> None:
        raise DataError(f"data source {name!r}: {attribute}={value!r}, expected {accepted}")

    def whole(value: Any, least: int) -> bool:
        return hasattr(value, "__index__") and value >= least

    count, classes = getattr(source, "num_examples", None), getattr(source, "num_classes", None)
    shape, names = getattr(source, "image_shape", None), source.class_names
    if not whole(count, 1):
        refuse("num_examples", count, "a number of at least 1")
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(whole(side, 1) for side in shape)):
        refuse("image_shape", shape, "a tuple (H, W, C), each at least 1")
    if not whole(classes, 0):
        refuse("num_classes", classes, "the number of classes, 0 without labels")
    if names is not None and len(names) != classes:
        refuse("class_names", names, f"None, or num_classes={classes} names")
    if source.captioned and (source.image_of is None or source.image_of.shape != (count,)):
        refuse("image_of", source.image_of, f"int64[{count}] as it is captioned: the image of each pair")


class _Checked(SourceView):
    def batch(self, indices: np.ndarray) -> Batch:
        batch = self.source.batch(indices)
        wanted = {"id": True, "image": True, "label": self.num_classes > 0, "caption": self.captioned}
        missing = sorted(field for field, is_wanted in wanted.items() if is_wanted and field not in batch)
        if missing:
            found = ", ".join(sorted(batch))
            raise DataError(f"{self.name}: a batch lacks {', '.join(missing)}; it has {found}")
        rows = np.shape(batch["id"])[0] if np.ndim(batch["id"]) else 0
        if rows > len(indices):
            raise DataError(f"{self.name}: {rows} examples for {len(indices)} indices")
        for field, array in batch.items():
            self._check_field(field, array, rows)
        if self.num_classes:
            self._check_range(batch["label"])
        return batch

    def _check_field(self, field: str, array: Any, rows: int) -> None:
        found = str(getattr(array, "dtype", type(array).__name__))
        expected = _TYPES.get(field, found)
        shape: tuple[int, ...] = (rows, *self.image_shape) if field == "image" else (rows,)
        if field not in _TYPES:
            # Of other fields it is the source's affair what an example has.
            shape = (rows, *np.shape(array)[1:])
        if not isinstance(array, np.ndarray) or found != expected or array.shape != shape:
            said = f"{found}{list(np.shape(array))}, expected {expected}{list(shape)}"
            raise DataError(f"{self.name}: {field!r} of a batch is {said}")

    def _check_range(self, labels: np.ndarray) -> None:
        outside = labels[(labels < 0) | (labels >= self.num_classes)]
        if outside.size:
            raise DataError(f"{self.name}: label {outside[0]}, expected 0 to {self.num_classes - 1}")
