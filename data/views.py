"""Sources that show another one differently: whole, in part, or split in two."""

import functools
from collections import Counter
from typing import Optional

import numpy as np

from classact.data import seeds
from classact.data.left_out import LeftOut
from classact.data.source import Batch, DataError, InShards, Source, checked_indices


class SourceView(Source):
    """A source that shows another one differently; everything is passed through.

    A view with other indices replaces `batch`, `load`, `expect`, `ids`, `caption_at`, `image_of`, `label_of`,
    `same_images` and `in_shards`.

    Args:
        source: the source to show.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name
        self.num_examples = source.num_examples
        self.image_shape = source.image_shape
        self.num_classes = source.num_classes
        self.class_names = source.class_names
        self.captioned = source.captioned
        self.accepted_damage = source.accepted_damage
        self.in_shards = source.in_shards
        self.has_splits = source.has_splits

    @functools.cached_property
    def image_of(self) -> Optional[np.ndarray]:
        """See `Source`."""
        return self.source.image_of

    @functools.cached_property
    def label_of(self) -> Optional[np.ndarray]:
        """See `Source`."""
        return self.source.label_of

    @property
    def digest(self) -> str:
        """See `Source.digest`; of the whole source behind it."""
        return self.source.digest

    @property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`."""
        return self.source.same_images

    @property
    def most_of_an_image(self) -> int:
        """See `Source.most_of_an_image`."""
        return self.source.most_of_an_image

    @property
    def left_out(self) -> LeftOut:
        """See `Source.left_out`; of the source behind it."""
        return self.source.left_out

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`."""
        return self.source.batch(indices)

    def load(self, indices: np.ndarray) -> None:
        """See `Source.load`."""
        self.source.load(indices)

    def keep_files(self) -> None:
        """See `Source.keep_files`."""
        self.source.keep_files()

    def expect(self, index: int) -> None:
        """See `Source.expect`."""
        self.source.expect(index)

    def ids(self, indices: np.ndarray) -> np.ndarray:
        """See `Source.ids`."""
        return self.source.ids(indices)

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        return self.source.caption_at(indices)

    @property
    def skipped(self) -> int:
        """See `Source.skipped`; counted by the source behind it."""
        return self.source.skipped

    @property
    def damage(self) -> Counter[str]:
        """See `Source.damage`; counted by the source behind it."""
        return self.source.damage

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """See `Source.sizes`; of the source behind it."""
        return self.source.sizes

    def begin_epoch(self, epoch: int) -> None:
        """Hears of which epoch, from 0, the next batches are; for a view whose examples change with it."""


def begin_epoch(source: Source, epoch: int) -> None:
    """Tells a source's views of which epoch the next batches are."""
    while isinstance(source, SourceView):
        source.begin_epoch(epoch)
        source = source.source


class _Part(SourceView):
    """Some examples of a source, by rising or any other index; their ids stay those of the full data set."""

    def _within(self, indices: np.ndarray) -> np.ndarray:
        """The indices in the source of indices in the part; IndexError if one is out of range."""
        raise NotImplementedError

    def _taken(self, every: Optional[np.ndarray]) -> Optional[np.ndarray]:
        """Of something that is known of each example of the source, that of the part's."""
        raise NotImplementedError

    @functools.cached_property
    def image_of(self) -> Optional[np.ndarray]:
        """See `Source`."""
        return self._taken(self.source.image_of)

    @functools.cached_property
    def label_of(self) -> Optional[np.ndarray]:
        """See `Source`."""
        return self._taken(self.source.label_of)

    @property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`."""
        return self._taken(self.source.same_images)

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; the indices count within the part."""
        return self.source.batch(self._within(indices))

    def load(self, indices: np.ndarray) -> None:
        """See `Source.load`."""
        self.source.load(self._within(indices))

    def expect(self, index: int) -> None:
        """See `Source.expect`."""
        self.source.expect(int(self._within(np.array([index]))[0]))

    def ids(self, indices: np.ndarray) -> np.ndarray:
        """See `Source.ids`."""
        return self.source.ids(self._within(indices))

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        return self.source.caption_at(self._within(indices))


class Subset(_Part):
    """Some examples of a source; their ids stay those of the full data set.

    Args:
        source: the full data set.
        indices: int64[M], which of its examples, in this subset's order.

    Raises:
        IndexError: if an index is outside of `source`.
        DataError: if there are no indices.
    """

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        super().__init__(source)
        self._indices = checked_indices(indices, source.num_examples)
        if not len(self._indices):
            raise DataError(f"{source.name}: a subset without examples")
        self.num_examples = len(self._indices)
        rising = not np.any(self._indices[1:] <= self._indices[:-1])
        if source.in_shards is not None:
            starts = np.searchsorted(self._indices, source.in_shards.starts)
            # Examples in another order are in no shards that follow each other.
            self.in_shards = InShards(starts, source.in_shards.buffer) if rising else None

    def _within(self, indices: np.ndarray) -> np.ndarray:
        return self._indices[checked_indices(indices, self.num_examples)]

    def _taken(self, every: Optional[np.ndarray]) -> Optional[np.ndarray]:
        return None if every is None else every[self._indices]


class Without(_Part):
    """All examples of a source but some; holds 8 bytes for each of those that are left out.

    Args:
        source: the full data set.
        out: int64[M], rising, which of its examples are left out.

    Raises:
        DataError: if there are no others.
    """

    def __init__(self, source: Source, out: np.ndarray) -> None:
        super().__init__(source)
        self._out = checked_indices(out, source.num_examples)
        self.num_examples = source.num_examples - len(self._out)
        if not self.num_examples:
            raise DataError(f"{source.name}: a subset without examples")
        # How many are left before each of them.
        self._before = self._out - np.arange(len(self._out))
        if source.in_shards is not None:
            starts = source.in_shards.starts
            self.in_shards = InShards(starts - np.searchsorted(self._out, starts), source.in_shards.buffer)

    def _within(self, indices: np.ndarray) -> np.ndarray:
        indices = checked_indices(indices, self.num_examples)
        return indices + np.searchsorted(self._before, indices, side="right")

    def _taken(self, every: Optional[np.ndarray]) -> Optional[np.ndarray]:
        return None if every is None else np.delete(every, self._out)


def held_out_split(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Splits a source in two at random, so that RHO's reference sees other data than the learner.

    All captions of an image go to one side.

    Args:
        source: the source to split.
        fraction: the share to hold out, in (0, 1); rounded to whole examples, or images with captions.
        seed: the same seed gives the same split in every process.

    Returns:
        (rest, held_out), without overlap, together the whole source.

    Raises:
        ValueError: if the fraction or the seed is out of range, or one side would be empty.
    """
    image_of = np.arange(source.num_examples)
    if source.image_of is not None:
        image_of = np.unique(source.image_of, return_inverse=True)[1]
    images = int(image_of.max()) + 1
    count = round(images * fraction) if 0 < fraction < 1 else 0
    if not 0 < count < images:
        raise ValueError(
            f"fraction={fraction} of the {source.num_examples} examples of {source.name}: expected a number "
            "between 0 and 1 that leaves at least one example on each side"
        )
    order = np.random.default_rng([0x5EED, seeds.checked(seed)]).permutation(images)
    held_out = np.isin(image_of, order[:count])
    return Subset(source, np.flatnonzero(~held_out)), Subset(source, np.flatnonzero(held_out))
