"""Which columns of a table hold images, labels and captions: what the spec says, or what they are called."""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from classact.data.source import DataError

# The first that a table has is taken. The last ones of the images are names of paths.
_USUAL = {
    "image": (
        "image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "image/encoded", "filepath", "file_path",
        "filename", "file_name", "image_path", "image_file", "path", "file",
    ),
    "label": (
        "label", "labels", "class", "class_id", "class_name", "cls", "target", "category",
        "image/class/label",
    ),
    "caption": (
        "caption", "captions", "text", "texts", "title", "sentence", "sentences", "captions/text",
        "image/caption",
    ),
}  # fmt: skip


class Chosen(NamedTuple):
    """The names of columns; of `label` and `caption` one is None."""

    image: str
    label: Optional[str]
    caption: Optional[str]


def choose(
    columns: Sequence[str],
    given: Mapping[str, Optional[str]],
    known: Mapping[str, Sequence[str]],
    where: str,
) -> Chosen:
    """Chooses a table's columns.

    Args:
        columns: the names of all.
        given: by role ("image", "label", "caption") what the spec says.
        known: by role the columns that the table itself says to be of that kind.
        where: the file, for errors.

    Raises:
        DataError: if a column is not there, or cannot be told; says what to type.
    """
    for role, name in given.items():
        if name is not None and name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DataError(f"{where}: no column {name!r} for ?{role}={hint} (it has {_listed(columns)})")
    image = given["image"] or _guess("image", columns, known, where)
    if image is None:
        raise DataError(f"{where}: which column holds the images? say ?image=COLUMN: {_listed(columns)}")
    label, caption = given["label"], given["caption"]
    if label is not None and caption is not None:
        raise DataError(f"{where}: ?label={label} and ?caption={caption}: expected one of the two")
    if label is None and caption is None:
        label, caption = (_guess(role, columns, known, where) for role in ("label", "caption"))
        if label is not None and caption is not None:
            raise DataError(
                f"{where}: it has labels ({label}) and captions ({caption}): say ?label={label} or "
                f"?caption={caption}"
            )
    if label is None and caption is None:
        raise DataError(
            f"{where}: which column holds labels or captions? say ?label=COLUMN or ?caption=COLUMN: "
            f"{_listed(columns)}"
        )
    return Chosen(image, label, caption)


def _guess(
    role: str, columns: Sequence[str], known: Mapping[str, Sequence[str]], where: str
) -> Optional[str]:
    of_kind = known.get(role, ())
    lower = {name.lower(): name for name in reversed(of_kind or columns)}
    usual = next((lower[name] for name in _USUAL[role] if name in lower), None)
    if usual is None and len(of_kind) > 1:
        raise DataError(f"{where}: which column? say ?{role}= with one of {_listed(of_kind)}")
    return of_kind[0] if usual is None and of_kind else usual


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns[:12]) + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")
