"""A held-out part of a source that has no eval split of its own."""

import numpy as np

from classact.data.source import Source


def eval_indices(source: Source, share: float, seed: int) -> np.ndarray:
    """Chooses the examples of a source to measure on, which nobody trains on.

    All captions of an image and all copies of it are on one side (copies as far as
    `Source.same_images` knows them). Where `Source.label_of` is known, each class gives
    the share of its images, and one at least if it has two; the last one is never taken.

    Args:
        source: the source.
        share: of the images, in [0, 1).
        seed: the same seed gives the same choice in every process.

    Returns:
        int64[M] in rising order; empty if there is nothing to spare.
    """
    if not share:
        return np.empty(0, np.int64)
    group_of = np.unique(_kept_together(source), return_inverse=True)[1]
    _, first = np.unique(group_of, return_index=True)
    classes = np.zeros(len(first), np.int64)
    if source.label_of is not None:
        classes = np.unique(np.asarray(source.label_of)[first], return_inverse=True)[1]
    sizes = np.bincount(classes)
    taken = _taken(sizes, share)
    order = np.random.default_rng([0xE7A1, seed]).permutation(len(first))
    order = order[np.argsort(classes[order], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank < taken[classes[order]]]
    return np.flatnonzero(np.isin(group_of, chosen))


def _taken(sizes: np.ndarray, share: float) -> np.ndarray:
    """How many images of each class, int64[K]: together the share, as even as whole numbers allow."""
    wanted = sizes * share
    most = np.maximum(sizes - 1, 0)
    taken = np.minimum(np.maximum(np.floor(wanted).astype(np.int64), 1), most)
    missing = round(float(wanted.sum())) - int(taken.sum())
    if missing > 0:
        left = np.where(taken < most, wanted - taken, -np.inf)
        candidates = np.argsort(-left, kind="stable")[:missing]
        taken[candidates[left[candidates] > 0]] += 1
    return taken


def _kept_together(source: Source) -> np.ndarray:
    """int64[num_examples]: equal numbers stay on one side."""
    same = source.same_images
    if same is not None:
        return same
    return np.arange(source.num_examples) if source.image_of is None else source.image_of
