"""The examples of indexed shards as a source."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Optional

import numpy as np

from classact.data import digests, duplicates
from classact.data.class_names import GivenClasses
from classact.data.damage import MAX_SHARE
from classact.data.image_files import DecodingSource, ImageFiles, RowFraming
from classact.data.left_out import LeftOut
from classact.data.shards.index_file import Index
from classact.data.shards.members import Members
from classact.data.shards.storage import Shard
from classact.data.shown import shown
from classact.data.source import Batch, DataError, InShards, checked_indices

# Of shards far away so many images are opened at most, until one is not damaged.
_PROBED = 10


class ShardSource(DecodingSource):
    """Images in tar shards with captions, or with labels, as an index says where they are.

    It holds a table of shards and, of the index, what is looked up. Where the lists of shards have
    factors, an example that comes k times in an epoch is k examples, of equal `same_images`, next to
    each other in the order of the lists: the whole list, then the whole list again.

    A damaged image is found, left out and counted as in `ImageFiles`.

    Args:
        name: the source's name, for errors.
        index: of all shards.
        shards: in the index's order.
        factors: how often each shard comes.
        lists: which list each shard is of, rising.
        size: the side of the square images in pixels, or None to take them as they are.
        channels: 3 for RGB or 1 for grey images.
        classes: what labels that are numbers mean, or in which order those are that are names.
        damaged: the share of the images that may be damaged.
        in_order: the buffer of the stream that reads them in sequence; None: at random.

    Raises:
        DataError: if labels have no such class, or images are of several sizes and `size` is None.
    """

    has_splits = False

    def __init__(
        self,
        name: str,
        index: Index,
        shards: Sequence[Shard],
        lists: Sequence[int],
        factors: Sequence[int],
        size: Optional[int],
        channels: int,
        classes: Optional[GivenClasses] = None,
        damaged: float = MAX_SHARE,
        in_order: Optional[int] = None,
    ) -> None:
        self.name = name
        self._index = index
        self._are_local = all(shard.is_local for shard in shards)
        self._one_each = index.image_of is None or len(index.image_of) == index.num_images
        self._repeated = any(factor > 1 for factor in factors)
        self._factors = factors
        self.left_out = _left_out(index)
        self.accepted_damage = damaged
        self._members = Members(index, shards)
        self._images = ImageFiles(
            name, self._members, size, channels, "tar:PATTERN?size=N", self.left_out, damaged,
            # Each of many, evenly over all, would fetch a shard.
            probed=None if self._are_local else np.arange(min(_PROBED, index.num_images)),
            until_good=not self._are_local,
        )  # fmt: skip
        self.image_shape = self._images.shape
        self._order_examples(np.array(lists), factors)
        self.captioned = index.labels is None
        self.num_classes = 0
        self._numbers: Optional[np.ndarray] = None
        if index.labels is not None:
            self._name_classes(index.labels, classes)
        if not self._are_local:
            self.fetched_whole = self._starts
        if in_order is not None:
            self.in_shards = InShards(self._starts, in_order)

    def _order_examples(self, lists: np.ndarray, factors: Sequence[int]) -> None:
        """Finds where the examples of each shard begin, each time that it comes."""
        pairs = np.array(self._index.summary.pair_starts)
        order = [
            shard
            for number, factor in enumerate(factors)
            for _ in range(factor)
            for shard in np.flatnonzero(lists == number).tolist()
        ]
        counts = np.diff(pairs)[order]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # What to add to an example's number to find its pair in the index.
        self._shift = pairs[:-1][order] - self._starts[:-1]
        self.num_examples = int(self._starts[-1])

    def _name_classes(self, labels: np.ndarray, given: Optional[GivenClasses]) -> None:
        own = self._index.summary.class_names
        names = None if given is None else given.names
        if own is None:
            self._check_numbers(labels, given)
            self.num_classes = given.number if given is not None else int(labels.max()) + 1
        elif names is not None and given is not None:
            number = {each: i for i, each in enumerate(names)}
            unknown = [each for each in own if each not in number]
            if unknown:
                raise DataError(
                    f"{self.name}: class '{shown(unknown[0])}' of its labels is not among the {len(names)} "
                    f"classes of {given.origin} ({len(unknown)} such classes)"
                )
            self._numbers = np.array([number[each] for each in own], np.int32)
            self.num_classes = len(names)
        else:
            if given is not None and given.number != len(own):
                raise DataError(f"{self.name}: {len(own)} different labels, but {given.origin}")
            names, self.num_classes = tuple(own), len(own)
        self.class_names = names

    def _check_numbers(self, labels: np.ndarray, given: Optional[GivenClasses]) -> None:
        greatest = int(labels.max())
        image = self._members[int(labels.argmax())]
        if given is None and greatest >= len(labels):
            raise DataError(
                f"{self.name}: {image} has label {greatest}, more than there are images; if that is right, "
                "say classes=NUMBER, or a file of their names"
            )
        if given is not None and greatest >= given.number:
            raise DataError(
                f"{image} has label {greatest}, expected 0 to {given.number - 1} of {given.origin}"
            )

    @functools.cached_property
    def image_of(self) -> Optional[np.ndarray]:
        """See `Source`; of labelled images None, unless they come several times."""
        pairs = self._index.image_of
        if not self._repeated:
            return pairs
        every = self._pairs(np.arange(self.num_examples))
        return every if pairs is None else pairs[every]

    @functools.cached_property
    def label_of(self) -> Optional[np.ndarray]:
        """See `Source`."""
        labels = self._index.labels
        if labels is None:
            return None
        if self._repeated:
            labels = labels[self._pairs(np.arange(self.num_examples))]
        return labels if self._numbers is None else self._numbers[labels]

    @functools.cached_property
    def most_of_an_image(self) -> int:
        """See `Source.most_of_an_image`; where each image has one example, without reading all of them."""
        return 1 if self._one_each and not self._repeated else super().most_of_an_image

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of names, sizes, captions or labels, and a few pieces."""
        own = self._index.summary.digest
        if not self._repeated:
            return own
        said = f"{own} {list(self._factors)}"
        return f"members:{hashlib.blake2b(said.encode(), digest_size=16).hexdigest()}"

    @functools.cached_property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`; copies are looked for in shards on a disk only."""
        same = self._copies()
        if same is None:
            return self.image_of if self._repeated else None
        pairs = self._pairs(np.arange(self.num_examples))
        return same[pairs if self._index.image_of is None else self._index.image_of[pairs]]

    def _copies(self) -> Optional[np.ndarray]:
        """int64[images]: as `duplicates.equal_files`, of which only those of equal sizes are asked."""
        if not self._are_local or self._index.summary.alike > duplicates.MAX_CANDIDATES:
            return None
        sizes = self._index.sizes()
        first = np.arange(len(sizes))
        _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
        candidates = np.flatnonzero((counts[inverse] > 1) & (sizes > 0))
        places = []
        for image in candidates.tolist():
            offset, size, _ = self._index.place(image)
            places.append(digests.Place(self._members.shard_of(image).path, offset, size))
        found = duplicates.equal_files(places)
        if found is None:
            return None
        first[candidates] = candidates[found]
        return first

    def framed_batch(self, indices: np.ndarray, framing: Optional[RowFraming] = None) -> Batch:
        """See `augment.augmented.FramedSource`."""
        indices = checked_indices(indices, self.num_examples)
        pairs = self._pairs(indices)
        images = self._images_of(pairs)
        try:
            if not self._are_local:
                self._members.load_far(images.tolist())
            kept, read = self._images.read(images, framing)
        finally:
            self._members.release(images.tolist())
        batch: Batch = {"id": indices[kept], **read}
        if self._index.labels is None:
            return {**batch, "caption": self._captions(pairs[kept])}
        labels = self._index.labels[pairs[kept]]
        return {**batch, "label": labels if self._numbers is None else self._numbers[labels]}

    def load(self, indices: np.ndarray) -> None:
        """See `Source.load`."""
        pairs = self._pairs(checked_indices(indices, self.num_examples))
        self._members.load(self._images_of(pairs).tolist())

    def expect(self, index: int) -> None:
        """See `Source.expect`; fetches the shard that it is in."""
        pairs = self._pairs(checked_indices(np.array([index]), self.num_examples))
        self._members.shard_of(int(self._images_of(pairs)[0])).expect()

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        if not self.captioned:
            return super().caption_at(indices)
        return self._captions(self._pairs(checked_indices(indices, self.num_examples))).tolist()

    def _pairs(self, indices: np.ndarray) -> np.ndarray:
        """The pair in the index that each example is, int64[N]."""
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        return indices + self._shift[shard]

    def _images_of(self, pairs: np.ndarray) -> np.ndarray:
        return pairs if self._one_each or self._index.image_of is None else self._index.image_of[pairs]

    def _captions(self, pairs: np.ndarray) -> np.ndarray:
        captions = np.empty(len(pairs), object)
        captions[:] = [self._index.caption(pair) for pair in pairs.tolist()]
        return captions


def _left_out(index: Index) -> LeftOut:
    found = LeftOut()
    for reason, count, names in index.summary.left_out:
        for more, each in enumerate(names):
            found.add(reason, each, 1 if more else count - len(names) + 1)
    found.remarks += index.summary.remarks
    return found
