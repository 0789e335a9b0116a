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

    A view with other indices replaces `batch`, `load`, `ids`, `caption_at`, `image_of`, `label_of`,
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
    def left_out(self) -> LeftOut:
        """See `Source.left_out`; of the source behind it."""
        return self.source.left_out

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`."""
        return self.source.batch(indices)

    def load(self, indices: np.ndarray) -> None:
        """See `Source.load`."""
        self.source.load(indices)

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


class Subset(SourceView):
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
        self.in_shards = _shards_of(source.in_shards, self._indices)

    @functools.cached_property
    def image_of(self) -> Optional[np.ndarray]:
        """See `Source`."""
        of = self.source.image_of
        return None if of is None else of[self._indices]

    @functools.cached_property
    def label_of(self) -> Optional[np.ndarray]:
        """See `Source`."""
        of = self.source.label_of
        return None if of is None else of[self._indices]

    @property
    def same_images(self) -> Optional[np.ndarray]:
        """See `Source.same_images`."""
        same = self.source.same_images
        return None if same is None else same[self._indices]

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; the indices count within the subset."""
        return self.source.batch(self._within(indices))

    def load(self, indices: np.ndarray) -> None:
        """See `Source.load`."""
        self.source.load(self._within(indices))

    def ids(self, indices: np.ndarray) -> np.ndarray:
        """See `Source.ids`."""
        return self.source.ids(self._within(indices))

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """See `Source.caption_at`."""
        return self.source.caption_at(self._within(indices))

    def _within(self, indices: np.ndarray) -> np.ndarray:
        return self._indices[checked_indices(indices, self.num_examples)]


def _shards_of(shards: Optional[InShards], indices: np.ndarray) -> Optional[InShards]:
    """Where shards begin in a part of a source; None if the part is in another order."""
    if shards is None or np.any(np.diff(indices) <= 0):
        return None
    return InShards(np.searchsorted(indices, shards.starts), shards.buffer)


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
