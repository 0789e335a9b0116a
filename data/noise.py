"""Label noise with a known truth, to measure what a selection policy selects."""

import numpy as np

from classact.data import seeds, splitmix
from classact.data.source import Batch, Source
from classact.data.views import SourceView

_UNIT = 2.0**-53


def with_label_noise(source: Source, rate: float, seed: int) -> Source:
    """Redraws labels uniformly over all classes, and keeps the true ones beside them.

    Each example's label is redrawn with probability `rate`. The new label may be
    the old one, so the share of wrong labels is `effective_noise_rate`: with 10
    classes, a rate of 20 % makes 18 % of the labels wrong.

    An example's noisy label depends on its id, the seed and the rate only: it is
    the same in every epoch, in every reader and process, and in any subset.

    Args:
        source: a source whose batches have `label`.
        rate: the probability of a redraw, in [0, 1].
        seed: the same seed gives the same noise.

    Returns:
        A source whose batches have the noisy `label: int32[B]` and the true
        `clean_label: int32[B]`.

    Raises:
        ValueError: if the rate or the seed is out of range, or the source has label noise already.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"label_noise={rate}: expected a probability, 0 to 1")
    return _NoisySource(source, rate, seeds.checked(seed))


def effective_noise_rate(rate: float, num_classes: int) -> float:
    """The expected share of wrong labels: rate · (1 − 1/K)."""
    return rate * (1.0 - 1.0 / num_classes)


class _NoisySource(SourceView):
    def __init__(self, source: Source, rate: float, seed: int) -> None:
        super().__init__(source)
        self._rate = rate
        self._seed = seed

    def batch(self, indices: np.ndarray) -> Batch:
        batch = self.source.batch(indices)
        if "clean_label" in batch:
            raise ValueError(f"{self.name} has label noise already")
        draws = _uniform(batch["id"], self._seed, stream=0)
        redrawn = np.floor(_uniform(batch["id"], self._seed, stream=1) * self.num_classes).astype(np.int32)
        clean = batch["label"]
        return {**batch, "label": np.where(draws < self._rate, redrawn, clean), "clean_label": clean}


def _uniform(ids: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """float64[B] in [0, 1): a hash of (seed, stream, id), so that no order of reading matters."""
    key = np.uint64(int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]))
    # Arrays of whole numbers wrap around, as is meant.
    mixed = splitmix.mixed(ids.astype(np.uint64) * splitmix.GOLDEN + key)
    return (mixed >> np.uint64(11)).astype(np.float64) * _UNIT
