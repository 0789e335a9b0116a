"""Softmax sampling from a table whose items come and go: an exponential race (Eq. 1).

An item of weight w = exp(score / temperature) that comes at time t runs until
t + E / w, with E ~ Exp(1) drawn for it, and the table gives out whichever finishes
next. Exp is memoryless: at any moment what is left of each run is again Exp(1) / w,
whenever it began. So the next one drawn is item i with probability w_i / Σ w over all
that are there at that moment, and with each item drawn once this is softmax sampling
without replacement, also while items are added and removed.

The table needs no sums of weights for that, only the smallest of the items' keys
(Reverb's `MinHeap`), which are their finishing times. Keys are logarithms of times, so
no temperature and no score is too large or too small for them. Who inserts needs to know
the time: it is the key of what was drawn last, a `Clock`. With a clock that is late,
new items are favoured over old ones of the same weight, so that what is drawn is
younger; how many of each weight are drawn changes little.
"""

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np

# Up to here a key still tells the luck of the draw, of order 1, from the weight.
MAX_LOG_WEIGHT = 1e9


@dataclasses.dataclass(frozen=True)
class LogWeights:
    """The logarithms of a batch's weights.

    Attributes:
        values: float64[B], score / temperature; 0 where not `keep`.
        keep: bool[B], False for the examples whose score is not finite: those must be
            dropped, since a key that is NaN kills a Reverb table.
        saturated: the number of kept examples whose score / temperature was beyond
            `MAX_LOG_WEIGHT`, and was clipped to it.
    """

    values: np.ndarray
    keep: np.ndarray
    saturated: int


def log_weights(scores: np.ndarray, temperature: float) -> LogWeights:
    """Computes score / temperature, always finite (Eq. 1).

    Args:
        scores: float[B].
        temperature: of the softmax, above 0, in the score's units. Below 1 it sharpens.
    """
    scores = np.asarray(scores, np.float64)
    keep = np.isfinite(scores)
    with np.errstate(over="ignore"):
        values = np.where(keep, scores, 0.0) / temperature
    clipped = np.clip(values, -MAX_LOG_WEIGHT, MAX_LOG_WEIGHT)
    return LogWeights(clipped, keep, int(np.count_nonzero(clipped != values)))


@dataclasses.dataclass(frozen=True)
class Clock:
    """The time of a race, as a table's reader knows it.

    A double tells times apart only to some 16 digits. When heavy items come after long
    runs of light ones, their runs vanish beside the time that has passed: added to it
    they would all be equal. So such an item keeps the logarithm of its run alone for its
    key, which is below that of everything else there, as it must be, and the clock,
    having stood still, begins to count anew on that scale, a level below. It goes on
    where it stood once an item above is drawn. A light item that comes meanwhile is
    counted from the level on whose scale its run is seen.

    What this leaves inexact: an item just below the border of two levels is drawn before
    one above it, even if that would have had less of its own run left than the border.
    So while the scale of all weights crosses a border, every 25 to 30 nats of a drift
    upward, new items are favoured over old ones of the same weight.

    Attributes:
        levels: logarithms of times, each far below the one before it; the last is where
            the clock runs. None before the first draw, at time 0.
    """

    levels: tuple[float, ...] = ()

    def after(self, keys: Sequence[float]) -> "Clock":
        """The clock after items were drawn: at the largest of their keys.

        Keys that were made with an older clock lie behind. Where they are all that came
        lately, it goes back to them: else the time of a light item, drawn just before
        they came, would give them a start over all that come next.

        Args:
            keys: theirs, in the order in which they were drawn.
        """
        levels = list(self.levels)
        for place, key in enumerate(keys):
            # Nothing is left of a level when something of the one above is drawn.
            while len(levels) > 1 and key >= levels[-2]:
                levels.pop()
            if not levels or key < levels[-1] - _reach(levels[-1]):
                levels.append(key)
            elif key >= levels[-1] or place < len(keys) // 2:
                levels[-1] = key
        return Clock(tuple(levels))

    def keys(self, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws the keys of items that come now; the smallest is the first to be drawn.

        Args:
            weights: float64[N], logarithms of the weights, see `log_weights`.
            rng: source of the luck of each.

        Returns:
            float64[N], finite.
        """
        # log(Exp(1) / w); the negative of what Gumbel-top-k sorts by.
        runs = -(weights + rng.gumbel(size=np.shape(weights)))
        keys = runs
        for level in reversed(self.levels):
            keys = np.where(keys < level - _reach(level), keys, np.logaddexp(level, runs))
        return keys

    def to_json(self) -> str:
        """The same as text, for the way between processes and into a checkpoint."""
        return json.dumps(self.levels)

    @classmethod
    def from_json(cls, text: str) -> "Clock":
        """Reads what `to_json` wrote."""
        return cls(tuple(json.loads(text)))


def _reach(level: float) -> float:
    """How many nats below a time a run may be, and still be told apart when added to it.

    Of the logarithms, at that size, the steps are e^-4 of the shortest such run.
    """
    return -math.log(math.ulp(max(abs(level), 1.0))) - 4.0


def gumbel_top_k(scores: np.ndarray, k: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Draws k examples from softmax(scores / temperature), without replacement.

    The k largest values of score / temperature + Gumbel noise are distributed
    as k draws in sequence from the softmax, each example taken once: what a race
    gives among items that come together, without a table.

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
