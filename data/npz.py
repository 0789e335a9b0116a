"""Reader of NumPy's npz files."""

import pathlib
import struct
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from classact.data.source import DataError


def read_npz(
    path: pathlib.Path, fields: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Reads some arrays of an npz file; never unpickles, so that a file cannot run code.

    Args:
        path: the file.
        fields: the arrays to read.
        optional: more arrays, which are read if they are there.

    Raises:
        DataError: if the file is missing, damaged, no npz file, lacks an array,
            or holds objects in one. It names the file.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "not an npz file, which numpy.savez writes"
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif isinstance(error, OSError):
            reason += f" ({error.strerror})"
        raise DataError(f"{path}: {reason}") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: a single array, expected an npz file with {', '.join(fields)}")
    with file:
        missing = sorted(set(fields) - set(file.files))
        if missing:
            raise DataError(
                f"{path}: lacks {', '.join(missing)}; it has {', '.join(sorted(file.files)) or 'nothing'}"
            )
        found = [*fields, *(field for field in optional if field in file.files)]
        return {field: _read_array(path, file, field) for field in found}


def _read_array(path: pathlib.Path, file: np.lib.npyio.NpzFile, field: str) -> np.ndarray:
    try:
        return file[field]
    except (
        OSError,
        ValueError,
        EOFError,
        MemoryError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path}: array {field!r} cannot be read ({error})") from error
