"""A source whose images are augmented as they are read."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from classact import user_code
from classact.data import seeds
from classact.data.augment.recipe import parse
from classact.data.decoding import pool
from classact.data.decoding.frames import finished
from classact.data.decoding.resizing import resized
from classact.data.image_files import RowFraming
from classact.data.source import Batch, DataError, Source
from classact.data.views import SourceView


@runtime_checkable
class FramedSource(Protocol):
    """A source that decodes images itself, and so can cut a part out before it is scaled."""

    def framed_batch(self, indices: np.ndarray, framing: RowFraming) -> Batch:
        """As `Source.batch`, of the parts that `framing` says, by the place in `indices`."""


class Augmented(SourceView):
    """Shows the images of a source by a recipe; the same of an example in the same epoch.

    Images that the source decodes are cut out of the whole photograph. Those of other sources,
    which come in one size, are cut out of what comes, and scaled to that size again.

    Args:
        source: of images.
        augment: as a configuration has it, see `recipe`.
        seed: of the random numbers.
        tried: whether a user's function is tried now, on the first example.

    Raises:
        AugmentError: if `augment` is not understood.
        DataError: if a user's function fails on the first example, or gives something else than
            an image. Later its errors go on as they are.
        ValueError: for a bad seed.
    """

    def __init__(self, source: Source, augment: str, seed: int, tried: bool = True) -> None:
        super().__init__(source)
        self._recipe = parse(augment)
        self._seed = seeds.checked(seed)
        self._functions = [user_code.find("augmentation", name) for name in self._recipe.functions]
        self._epoch = 0
        if self._functions and tried:
            with user_code.reported_as(DataError, f"augment={augment!r}"):
                self.batch(np.arange(1))

    def begin_epoch(self, epoch: int) -> None:
        """See `SourceView.begin_epoch`."""
        self._epoch = epoch

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`.

        Raises:
            DataError: as the source, or if a user's function gives something else than an image.
        """
        if isinstance(self.source, FramedSource):
            numbers = self._recipe.numbers(self._seed, self._epoch, self.source.ids(indices))
            batch = self.source.framed_batch(
                indices, lambda row, *image: self._recipe.frame(numbers[row], *image)
            )
        else:
            batch = self.source.batch(indices)
            batch = {**batch, "image": self._cut(batch["image"], batch["id"])}
        if self._functions:
            batch["image"] = self._by_functions(batch["image"], batch["id"])
        return batch

    def _cut(self, images: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Augments decoded images uint8[N, H, W, C]."""
        numbers = self._recipe.numbers(self._seed, self._epoch, ids)
        height, width = images.shape[1:3]

        def cut(row: int) -> np.ndarray:
            frame = self._recipe.frame(numbers[row], width, height, (width, height))
            return finished(resized(images[row], frame.box, frame.size), frame)

        return _stacked(cut, images)

    def _by_functions(self, images: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """What a user's functions make of images uint8[N, H, W, C]."""

        def changed(row: int) -> np.ndarray:
            image = images[row]
            rng = np.random.default_rng([self._seed, self._epoch, int(ids[row])])
            for name, function in zip(self._recipe.functions, self._functions, strict=True):
                image = function(image, rng)
                if getattr(image, "dtype", None) != np.uint8 or image.shape != images.shape[1:]:
                    found = f"{getattr(image, 'dtype', type(image).__name__)}{list(np.shape(image))}"
                    raise DataError(
                        f"augmentation {name!r} made {found} of an image, expected "
                        f"uint8{list(images.shape[1:])}"
                    )
            return image

        return _stacked(changed, images)


def _stacked(work: Callable[[int], np.ndarray], images: np.ndarray) -> np.ndarray:
    """What is made of each image of a batch, in the decoding threads: uint8[N, H, W, C]."""
    made = np.empty_like(images)
    for row, image in enumerate(pool.in_order(work, range(len(images)))):
        made[row] = image
    return made
