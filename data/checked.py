"""A user's source, whose promises are checked as it is read.

What does not hold would otherwise show far away: in the replay's records, in the
middle of a model, or as a metric that is silently of something else.
"""

from typing import Any

import numpy as np

from classact import user_code
from classact.data.source import Batch, DataError, Source, SourceView

_FIELDS = {"id": np.int64, "image": np.uint8, "label": np.int32}
_FEW = 2


def checked(source: Any, name: str) -> Source:
    """Checks what a user's function has opened, reads two examples, and watches the later ones.

    Args:
        source: what was opened.
        name: its spec, for errors.

    Returns:
        The source, or a view that checks each batch: DataError for one that breaks
        the contract of `Source`.

    Raises:
        DataError: if it is no source, lacks an attribute, or its first examples are
            not what it says.
    """
    if not isinstance(source, Source):
        raise DataError(f"data source {name!r} opened a {type(source).__name__}, expected a data.source.Source")
    user_code.adopt(source)
    for attribute, accepted in (
        ("num_examples", "the number of examples, at least 1"),
        ("image_shape", "(H, W, C), each at least 1"),
        ("num_classes", "the number of classes, 0 without labels"),
    ):
        value = getattr(source, attribute, None)
        whole = value if isinstance(value, tuple) and len(value) == 3 else (value,)
        least = 0 if attribute == "num_classes" else 1
        fits = len(whole) == (3 if attribute == "image_shape" else 1)
        if not fits or not all(hasattr(n, "__index__") and n >= least for n in whole):
            raise DataError(f"data source {name!r}: {attribute}={value!r}, expected {accepted}")
    if source.class_names is not None and len(source.class_names) != source.num_classes:
        raise DataError(
            f"data source {name!r}: {len(source.class_names)} class_names for num_classes={source.num_classes}"
        )
    if source.captioned and np.shape(source.image_of) != (source.num_examples,):
        raise DataError(
            f"data source {name!r}: captioned, but image_of has shape {list(np.shape(source.image_of))}, "
            f"expected [{source.num_examples}], the number of each pair's image"
        )
    # Names what it is before any view of it is made.
    source.name = name
    view = _Checked(source)
    view.batch(np.arange(min(_FEW, source.num_examples)))
    return view


class _Checked(SourceView):
    def batch(self, indices: np.ndarray) -> Batch:
        batch = self.source.batch(indices)
        wanted = {"id", "image"} | ({"label"} if self.num_classes else set())
        wanted |= {"caption"} if self.captioned else set()
        missing = sorted(wanted - set(batch))
        if missing:
            raise DataError(f"{self.name}: a batch lacks {', '.join(missing)}; it has {', '.join(sorted(batch))}")
        rows = len(batch["id"])
        for field, array in batch.items():
            self._check_field(field, array, rows)
        if rows > len(indices):
            raise DataError(f"{self.name}: {rows} rows for {len(indices)} indices")
        if self.num_classes:
            self._check_range(batch["label"])
        return batch

    def _check_field(self, field: str, array: Any, rows: int) -> None:
        shape = (rows, *self.image_shape) if field == "image" else (rows,)
        dtype = np.dtype(_FIELDS.get(field, getattr(array, "dtype", object)))
        found = f"{getattr(array, 'dtype', type(array).__name__)}{list(np.shape(array))}"
        fits = np.shape(array) == shape if field in (*_FIELDS, "caption") else len(array) == rows
        if not isinstance(array, np.ndarray) or array.dtype != dtype or not fits:
            raise DataError(f"{self.name}: {field!r} of a batch is {found}, expected {dtype}{list(shape)}")

    def _check_range(self, labels: np.ndarray) -> None:
        outside = labels[(labels < 0) | (labels >= self.num_classes)]
        if outside.size:
            raise DataError(f"{self.name}: label {outside[0]}, expected 0 to {self.num_classes - 1}")
