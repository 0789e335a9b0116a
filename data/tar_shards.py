"""`tar:PATTERN`: image–text pairs in tar shards, as WebDataset lays them out."""

import glob
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Optional

from classact.data.caption_text import CaptionedImages, captions_option
from classact.data.captioned_files import CaptionedFiles
from classact.data.image_files import size_and_channels
from classact.data.pairing import pair_up
from classact.data.registry import register_source
from classact.data.shown import shown
from classact.data.source import DataError, Source
from classact.data.tar_members import members_of

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@register_source("tar")
def open_tar(
    argument: str, split: str, *, size: Optional[str] = None, channels: str = "3", captions: str = "one"
) -> Source:
    """`tar:PATTERN`, with `?size=64`, `?channels=1` or `?captions=lines`: all of it for both splits.

    PATTERN names the shards: a path, in which `*`, `?` and `[…]` match as in a shell
    and `{000..009}` stands for each number. A shard's images are its members whose
    names have an image's ending; the caption of an image is the member `.txt` whose
    name is otherwise the same, and `pairing.pair_up` says what it is where names come
    twice. A `.txt` is one caption, its whole text; with `?captions=lines` each of
    its lines is one. See `CaptionedFiles` for the rest.

    Opening reads all shards' headers and captions, tens of thousands of pairs in a
    second, and no images. It holds some 300 bytes a pair.

    Raises:
        DataError: if no shard matches, one is missing, cut off, compressed or no tar
            file, which caption an image has cannot be told, too many captions are
            no UTF-8, or there are no pairs.
    """
    del split
    name = f"tar:{argument}"
    found = CaptionedImages(name, captions_option("tar", captions))
    for path in shard_paths(argument):
        _read_pairs(path, found)
    return CaptionedFiles(found, *size_and_channels("tar", size, channels), "tar:PATTERN?size=N")


def _read_pairs(path: pathlib.Path, found: CaptionedImages) -> None:
    """Reads the captions of a shard's pairs, in the order of their images."""
    members = members_of(path, found.left_out)
    names = [member.name for member in members]
    pairs, beside = pair_up(names, shown(str(path)), found.left_out, members.__getitem__)
    found.beside += beside
    with path.open("rb") as file:
        for image, caption in pairs:
            member = members[caption]
            file.seek(member.offset)
            found.add(members[image], member, file.read(member.size))


def shard_paths(pattern: str) -> list[pathlib.Path]:
    """The files of a pattern, sorted within each of its numbers; DataError if there are none."""
    if not pattern:
        raise DataError("data source 'tar' needs a path: tar:PATTERN")
    paths: list[str] = []
    for expanded in _expand(str(pathlib.Path(pattern).expanduser())):
        matches = sorted(glob.glob(expanded)) or sorted(glob.glob(glob.escape(expanded)))
        if not matches:
            raise DataError(f"{expanded}: no such file")
        paths += matches
    if not paths:
        raise DataError(f"{pattern}: a range without numbers, expected {{FIRST..LAST}}")
    return [pathlib.Path(path) for path in paths]


def _expand(pattern: str) -> Iterator[str]:
    """Replaces each `{000..009}` by the numbers from the first to the last, as wide as the first."""
    pieces = _RANGE.split(pattern)
    ranges = [
        [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        for first, last in zip(pieces[1::3], pieces[2::3], strict=True)
    ]
    for numbers in itertools.product(*ranges):
        filled = itertools.chain.from_iterable(zip(pieces[::3], (*numbers, ""), strict=True))
        yield "".join(filled)
