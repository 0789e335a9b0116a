"""What a source of examples is, and the sources that need no file format.

A source is a finite, indexable data set. Drawing from it at random, for ever,
is the business of `stream.IIDStream`, and of `shard_stream.ShardStream`.
"""

import abc
import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Optional

import numpy as np

from classact.data import digests, duplicates
from classact.data.damage import MAX_SHARE
from classact.data.left_out import LeftOut

# `id: int64[B]`, `image: uint8[B, H, W, C]` and the fields of the task: for
# classification `label: int32[B]`, with label noise also `clean_label: int32[B]`;
# for image–text learning `caption`, an object array [B] of str, which
# `captions.Tokenized` turns into `text: int32[B, L]`, and with shuffled captions
# also `corrupted: bool[B]`.
Batch = dict[str, np.ndarray]


class DataError(ValueError):
    """Input data that cannot be used; the message names the file and the example."""


@dataclasses.dataclass(frozen=True)
class InShards:
    """That a source is to be read shard by shard, and how: see `shard_stream`.

    Attributes:
        starts: int64[shards + 1], the index at which each shard begins, and `num_examples`.
        buffer: of how many examples that follow each other the next one is drawn.
    """

    starts: np.ndarray
    buffer: int


class Source(abc.ABC):
    """A finite data set, read by index.

    An example of a captioned source is one pair of an image and a caption: an
    image with k captions gives k examples.

    What a source must keep, as the whole program relies on it:

    - **The same everywhere.** Opened with the same spec and split it has the same
      `num_examples` and the same examples at the same indices: in every process, on
      every host, and when the run is resumed. So sort what a directory lists, draw
      nothing at random without a fixed seed, and do not let a data set grow while a
      run trains on it. A place in the data is saved as a seed and a number.
    - **Finite, its length known when it is opened.** There are no endless streams.
    - **Opened anew by each reader, shared by none.** The launcher opens it once to check
      it, then each run loop for itself (two threads of an inference server by
      default), each evaluator, with `replay.images=ids` the learner, and all of them again
      after a restart. An instance is called by one thread at a time, so it needs no locks and
      may keep open files; module-level state is shared by the threads of a process and does need them. It
      is never pickled or sent.
    - **Quick and small to open.** The time counts for every reader, and so does the
      memory: keep where the examples are, not the examples. The learner waits for its
      first batch meanwhile.
    - **`batch` may block**, for a disk or a network. The run loop that asks waits, and
      nothing else does until the learner has no examples left; after
      `no_data_seconds` without any what reads is started again. A read that may take longer than
      `hung_seconds` is announced by `with nodes.activity.waiting("…")`, or it hangs.
    - **Errors.** What is wrong with the data is a `DataError` that names the file and
      the example: the run ends in one line. An `OSError` ends the node, which is
      started again, as a disk or a network may come back. Any other exception ends
      the run at once with its traceback.

    Attributes:
        name: the spec it was opened by, for messages and metrics. `specs.open_source`
            sets it, over whatever the source called itself.
        num_examples: how many indices there are.
        image_shape: (H, W, C) of every image.
        num_classes: labels are in [0, num_classes); 0 for a source without labels.
        class_names: one name a class, or None if unknown.
        captioned: whether the batches have captions, as `caption` or `text`. A source
            of a user's own gives `caption`; the tokenizer makes `text` of it. It must
            have `image_of`, and `caption_at` for noise and for retrieval.
        image_of: for a captioned source int64[num_examples], the number of the
            image that each pair shows: equal numbers, same image.
        label_of: int[num_examples], each example's true label, whatever noise a view adds;
            None if it is not known without reading images.
        accepted_damage: the share of the images that may be damaged before a run ends, in [0, 1).
        in_shards: if it should be read shard by shard, as what is far away; None: at random.
        fetched_whole: int64[files + 1], the index at which each file begins that is fetched whole when an
            example of it is read, and `num_examples`; None: no such files, or a view of them.
        has_splits: whether "train" and "eval" are different examples. A source that is the
            whole of it for both says False; then a run holds out a part of it to measure on.
    """

    name: str
    num_examples: int
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: Optional[tuple[str, ...]] = None
    captioned: bool = False
    accepted_damage: float = MAX_SHARE
    in_shards: Optional[InShards] = None
    fetched_whole: Optional[np.ndarray] = None
    has_splits: bool = True

    @functools.cached_property
    def image_of(self) -> Optional[np.ndarray]:
        """See the class; a source may also set it."""
        return None

    @functools.cached_property
    def label_of(self) -> Optional[np.ndarray]:
        """See the class; a source may also set it."""
        return None

    @functools.cached_property
    def digest(self) -> str:
        """What changes when the data do, as `data.digests` makes it; empty: not known.

        It must be cheap (a second for a million examples), equal in every process, and
        the same wherever the data are mounted.
        """
        return ""

    @functools.cached_property
    def same_images(self) -> Optional[np.ndarray]:
        """int64[num_examples], equal numbers where images are copies of each other; None: not known.

        The captions of an image have one number. May read each image once.
        """
        return None

    @functools.cached_property
    def most_of_an_image(self) -> int:
        """How many examples show the same image, at most; a part of a source may say what the whole has."""
        if self.image_of is None:
            return 1
        return int(np.unique(self.image_of, return_counts=True)[1].max())

    @functools.cached_property
    def left_out(self) -> LeftOut:
        """What was found when it was opened and is not shown; a view has that of its source."""
        return LeftOut()

    @abc.abstractmethod
    def batch(self, indices: np.ndarray) -> Batch:
        """Reads examples.

        A source that reads files may leave out examples that it finds damaged,
        so that the batch has fewer rows than `indices`; see `skipped`.

        Args:
            indices: int64[N], each in [0, num_examples).

        Returns:
            Arrays of one row per example, in the order of `indices`; `id` names
            the example in the full data set, also when this source is a part of it.

        Raises:
            IndexError: if an index is out of range.
            DataError: if an example cannot be used and may not be left out.
        """

    @property
    def skipped(self) -> int:
        """The number of different damaged images met so far."""
        return 0

    @property
    def damage(self) -> Counter[str]:
        """The damaged images met so far, by what they are instead of images."""
        return Counter()

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """(width, height) in pixels of the files that were opened to see it, before any resizing."""
        return Counter()

    def load(self, indices: np.ndarray) -> None:  # noqa: B027
        """Hears that `batch` will soon be asked for examples, once for each time that they are named here.

        Whoever reads in sequence says so in the order of the files; the source may read them
        now and keep their bytes, or do nothing. May block as `batch` does.

        Raises:
            IndexError: if an index is out of range.
        """

    def keep_files(self) -> None:
        """Asks that batches also have `file`, the images' files, as `carried.kinds.FILE` says.

        Raises:
            DataError: if the images are in no files.
        """
        raise DataError(
            f"{self.name}: its images are in no files that could be carried: expected "
            "replay.images=pixels, or ids"
        )

    def expect(self, index: int) -> None:  # noqa: B027
        """Hears that an example will be loaded, after some thousands of others; must not block.

        What is far away may be fetched meanwhile.
        """

    def ids(self, indices: np.ndarray) -> np.ndarray:
        """The `id` int64[N] that `batch` gives these examples, without reading them.

        Raises:
            IndexError: if an index is out of range.
        """
        return checked_indices(indices, self.num_examples)

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """The captions of examples, without reading their images.

        Raises:
            IndexError: if an index is out of range.
            DataError: if the source has no captions.
        """
        raise DataError(f"{self.name} has no captions, only labels")


class ArraySource(Source):
    """A labelled data set held in memory.

    Args:
        name: see `Source`.
        images: uint8[N, H, W, C], kept without a copy.
        labels: integers[N], each in [0, num_classes).
        num_classes: the number of classes, at least 1.
        class_names: one name a class.
        origin: the file that errors should name; `name` if not given.

    Raises:
        DataError: for arrays of another kind or length, or a label out of
            range; it names the first such example.
    """

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        class_names: Optional[Sequence[str]] = None,
        *,
        origin: Optional[str] = None,
    ) -> None:
        origin = name if origin is None else origin
        _check_arrays(images, labels, origin)
        check_labels(labels, num_classes, origin)
        if class_names is not None and len(class_names) != num_classes:
            raise DataError(f"{origin}: {len(class_names)} class names for {num_classes} classes")
        self.name = name
        self.num_examples = len(images)
        self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
        self.num_classes = num_classes
        self.class_names = None if class_names is None else tuple(class_names)
        self._images = images
        self._labels = labels.astype(np.int32)
        self.label_of = self._labels

    @functools.cached_property
    def digest(self) -> str:
        """See `Source.digest`; of contents."""
        return digests.of_arrays(self._images, self._labels)

    @functools.cached_property
    def same_images(self) -> np.ndarray:
        """See `Source.same_images`."""
        return duplicates.equal_rows(self._images)

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`; always as many rows as indices."""
        indices = checked_indices(indices, self.num_examples)
        return {"id": indices, "image": self._images[indices], "label": self._labels[indices]}


def checked_indices(indices: np.ndarray, num_examples: int) -> np.ndarray:
    """Returns the indices as int64[N]; IndexError unless each is in [0, num_examples)."""
    indices = np.asarray(indices, dtype=np.int64)
    outside = indices[(indices < 0) | (indices >= num_examples)]
    if outside.size:
        raise IndexError(f"index {outside[0]}: expected 0 to {num_examples - 1}")
    return indices


def check_labels(labels: np.ndarray, num_classes: int, origin: str) -> None:
    """Raises DataError, naming the first example, unless each label is in [0, num_classes)."""
    if num_classes < 1:
        raise DataError(f"{origin}: num_classes={num_classes}, expected at least 1")
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        raise DataError(
            f"{origin}: example {outside[0]} has label {labels[outside[0]]}, expected 0 to {num_classes - 1}"
            f" ({outside.size} such examples)"
        )


def _check_arrays(images: np.ndarray, labels: np.ndarray, origin: str) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"{origin}: images are {images.dtype}{list(images.shape)}, "
            "expected uint8[N, H, W, C], none of them 0"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(f"{origin}: labels are {labels.dtype}{list(labels.shape)}, expected integers[N]")
    if len(images) != len(labels):
        raise DataError(
            f"{origin}: {len(images)} images but {len(labels)} labels: "
            f"example {min(len(images), len(labels))} lacks one of the two"
        )
