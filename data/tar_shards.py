"""`tar:PATTERN`: images with captions or labels in tar shards, as WebDataset lays them out."""

import itertools
import os
from collections.abc import Sequence
from typing import Optional

from classact.data.caption_text import captions_option
from classact.data.class_names import classes_option
from classact.data.file_patterns import is_url
from classact.data.image_files import size_and_channels
from classact.data.options import positive_option, share_option
from classact.data.registry import register_source
from classact.data.shards.building import Reading, open_index
from classact.data.shards.patterns import shard_lists
from classact.data.shards.remote import DEFAULT_CACHE_GB, Fetches, RemoteShard, shard_cache
from classact.data.shards.source import ShardSource
from classact.data.shards.storage import LocalShard, Shard, members_in, opened
from classact.data.source import DataError, Source
from classact.data.walk import ending

ORDERS = ("iid", "shards")
# As many as open_clip's; half of them are in memory on average, encoded.
DEFAULT_BUFFER = 5000


@register_source("tar")
def open_tar(
    argument: str,
    split: str,
    *,
    size: Optional[str] = None,
    channels: str = "3",
    captions: str = "one",
    caption: Optional[str] = None,
    label: Optional[str] = None,
    classes: Optional[str] = None,
    factors: Optional[str] = None,
    order: Optional[str] = None,
    buffer: Optional[str] = None,
    cache_gb: Optional[str] = None,
    damaged: str = "0.01",
) -> Source:
    """`tar:PATTERN`, or `tar:PATTERN::PATTERN…`: all of it for both splits.

    `patterns.shard_lists` says what names shards. A shard's images are its members whose names
    have an image's ending; what belongs to an image is the member whose name is otherwise the
    same, and `pairing.pair_up` says what it is where names come twice. Options, besides `size`,
    `channels` and `damaged`:

    - `caption=txt` (a `.txt` member), `caption=KEY` (what a `.json` member has there, a text or
      a list of them), `label=cls` (a `.cls` member: a number, or a class's name) or `label=KEY`.
      With none, captions if the first shard has any `.txt`, else labels if it has any `.cls`.
    - `captions=lines`: each line of a text is a caption of its image.
    - `classes=FILE`: the names of the classes, or how many there are (`class_names.classes_option`); a
      FILE that is no path lies beside the first shard.
    - `factors=2::1`: how often the examples of each list come in an epoch.
    - `order=shards`: read shard by shard, mixed through a buffer of `buffer` examples
      (`shard_stream`); `order=iid`: at random. Files of a disk are read at random, and URLs shard
      by shard, if it is not given.
    - `cache_gb=10`: of URLs, which are fetched whole, how much is kept on this machine.

    Opening reads an index, `building.open_index`, and makes it if there is none.

    Raises:
        DataError: if no shard matches, one is missing, cut off, compressed or no tar
            file, which text an image has cannot be told, too many texts are none that can
            be read, an option has a value that it cannot have, or there are no examples.
    """
    del split
    name = f"tar:{argument}"
    lists = shard_lists(argument, factors)
    paths = list(itertools.chain.from_iterable(each.paths for each in lists))
    shards = _shards(paths, cache_gb)
    if order is not None and order not in ORDERS:
        raise DataError(f"data source 'tar': order={order}, expected iid or shards")
    in_sequence = order == "shards" or (order is None and not all(shard.is_local for shard in shards))
    if buffer is not None and not in_sequence:
        raise DataError(f"data source 'tar': buffer={buffer} is for order=shards, and this is read at random")
    examples = DEFAULT_BUFFER if buffer is None else positive_option("tar", "buffer", buffer)
    pixels = size_and_channels("tar", size, channels)
    reading = _reading(captions_option("tar", captions), caption, label, shards)
    if classes is not None and reading.text != "label":
        raise DataError(f"data source 'tar': classes={classes} is for labels, and captions are read here")
    if classes is not None and not classes.isdecimal():
        classes = _beside(classes, paths[0])
    return ShardSource(
        name,
        open_index(shards, reading, name),
        shards,
        [number for number, each in enumerate(lists) for _ in each.paths],
        [each.factor for each in lists],
        *pixels,
        classes_option("tar", classes),
        share_option("tar", "damaged", damaged),
        examples if in_sequence else None,
    )


def _shards(paths: Sequence[str], cache_gb: Optional[str]) -> list[Shard]:
    if cache_gb is not None and not any(map(is_url, paths)):
        raise DataError(f"data source 'tar': cache_gb={cache_gb} is for URLs, and these are files")
    limit = DEFAULT_CACHE_GB if cache_gb is None else positive_option("tar", "cache_gb", cache_gb)
    cache, counts = shard_cache(limit), Fetches()
    return [RemoteShard(path, cache, counts) if is_url(path) else LocalShard(path) for path in paths]


def _reading(lines: bool, caption: Optional[str], label: Optional[str], shards: Sequence[Shard]) -> Reading:
    """What is read of each example."""
    for option, value in (("caption", caption), ("label", label)):
        if value == "":
            raise DataError(f"data source 'tar': {option}= is empty, expected the key of a .json member")
    if caption is not None and label is not None:
        raise DataError(
            f"data source 'tar': caption={caption} and label={label}: expected one of them, what is learned"
        )
    if label is None and caption is None and not _has_text(shards[0], ".txt"):
        label = "cls" if _has_text(shards[0], ".cls") else None
    if label is None:
        return Reading("caption", "" if caption in (None, "txt") else str(caption), lines)
    if lines:
        raise DataError("data source 'tar': captions=lines is for captions, and labels are read here")
    return Reading("label", "" if label == "cls" else label)


def _has_text(shard: Shard, suffix: str) -> bool:
    """Whether a shard has a member of an ending."""
    with opened(shard) as file:
        return any(ending(member.name) == suffix for member in members_in(shard, file))


def _beside(file: str, first: str) -> str:
    """A file that is named by a path, or lies beside the first shard."""
    beside = os.path.join(os.path.dirname(first), file)
    named = os.path.basename(file) != file or os.path.exists(file) or is_url(first)
    return file if named else beside
