"""What the tables of all formats need."""

import os
from typing import Optional

import numpy as np
import pyarrow as pa

from classact.data.source import DataError


def evenly(count: int, most: int) -> np.ndarray:
    """int64[M] in rising order: at most so many of the numbers below `count`, evenly over all."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64)) if count else np.empty(0, np.int64)


def images_folder(folder: Optional[str], file: str) -> str:
    """Where relative paths of images start: at the option `folder`, or at the directory of a file.

    Raises:
        DataError: if the option names no directory.
    """
    if not folder:
        return os.path.dirname(file)
    found = os.path.expanduser(folder)
    if not os.path.isdir(found):
        raise DataError(f"folder={folder}: no such directory, expected that in which the images are")
    return found


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of an Arrow type holds texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def reason(error: Exception) -> str:
    """Why a file cannot be read, in few words; Arrow's own errors name the file again, and more."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error).splitlines()[0].split(". Detail")[0].rstrip(".")
