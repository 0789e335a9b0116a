"""From scores to replay priorities, and softmax sampling without replacement.

Reverb's `Prioritized(priority_exponent=1.0)` selects an item with probability
priority / Σ priorities. With priority = exp(score / temperature) that is the
softmax of Eq. 1, and `max_times_sampled=1` makes it sampling without
replacement.
"""

import dataclasses
import math

import numpy as np

# exp(-690) is a normal double and a thousand million items of exp(650) still
# have a finite sum; Reverb rebuilds its sums when they lose precision, so the
# whole window is usable.
MIN_LOG_PRIORITY = -690.0
MAX_LOG_PRIORITY = 650.0


@dataclasses.dataclass(frozen=True)
class PriorityConfig:
    """How scores become priorities; one and the same for all writers of a table.

    Attributes:
        temperature: of the softmax, in the score's units. Below 1 it sharpens.
        score_shift: subtracted from every score, in the score's units. It
            cancels in the softmax; move it only if `score/saturated` is not 0.
            It must not change during a run, since the items in the table keep
            the priorities that they were inserted with.
    """

    temperature: float = 1.0
    score_shift: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature={self.temperature!r}: must be a finite number above 0")
        if not math.isfinite(self.score_shift):
            raise ValueError(f"score_shift={self.score_shift!r}: must be a finite number")


@dataclasses.dataclass(frozen=True)
class Priorities:
    """The priorities of a batch.

    Attributes:
        values: float64[B], finite and above 0 where `keep`, else 0.
        keep: bool[B], False for the examples whose score is not finite: those
            must be dropped, since a NaN kills a Reverb table.
        saturated: the number of kept examples whose score / temperature lies
            outside of what a double can hold, and was clipped to its border.
    """

    values: np.ndarray
    keep: np.ndarray
    saturated: int


def priorities(scores: np.ndarray, config: PriorityConfig) -> Priorities:
    """Computes exp((score − shift) / temperature), always finite and positive.

    Args:
        scores: float[B].
        config: temperature and shift.

    Returns:
        The priorities (Eq. 1, numerator), with a mask of the usable ones.
    """
    scores = np.asarray(scores, np.float64)
    keep = np.isfinite(scores)
    with np.errstate(over="ignore"):
        logits = (np.where(keep, scores, 0.0) - config.score_shift) / config.temperature
    clipped = np.clip(logits, MIN_LOG_PRIORITY, MAX_LOG_PRIORITY)
    saturated = int(np.count_nonzero(keep & (clipped != logits)))
    return Priorities(np.where(keep, np.exp(clipped), 0.0), keep, saturated)


def gumbel_top_k(scores: np.ndarray, k: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Draws k examples from softmax(scores / temperature), without replacement.

    The k largest values of score / temperature + Gumbel noise are distributed
    as k draws in sequence from the softmax, each example taken once: the
    synchronous counterpart of a prioritized table with `max_times_sampled=1`.

    Args:
        scores: float[B], finite.
        k: how many to draw, at most B.
        temperature: of the softmax, above 0.
        rng: source of randomness.

    Returns:
        int64[k], indices in the order of the draws.

    Raises:
        ValueError: if k is larger than the number of scores.
    """
    scores = np.asarray(scores, np.float64)
    if not 0 <= k <= scores.size:
        raise ValueError(f"k={k}: must be between 0 and the number of scores, {scores.size}")
    perturbed = scores / temperature + rng.gumbel(size=scores.shape)
    return np.argsort(-perturbed, kind="stable")[:k]
