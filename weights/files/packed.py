"""Zip files that would unpack to far more than there is of them."""

import pathlib
import zipfile

# Trained weights hardly become smaller; those that begin at zero, such as a new head, almost vanish.
_TIMES, _BYTES = 20, 1 << 28


def check(path: pathlib.Path, archive: zipfile.ZipFile) -> None:
    """Refuses what a few megabytes could fill the memory with.

    What is read of a member is no more than its size in the directory, which is looked at.

    Raises:
        ValueError: saying what it would unpack to.
    """
    unpacked, packed = sum(member.file_size for member in archive.infolist()), path.stat().st_size
    if unpacked > max(_BYTES, _TIMES * packed):
        raise ValueError(f"its {packed:,} bytes would unpack to {unpacked:,}, as no weights do")
