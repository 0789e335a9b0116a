"""What a few seeds show: means, spreads, and paired differences with their intervals."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Optional

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
# A difference is marked as one only with a smaller p than this.
STARRED = 0.01
# A spread so small beside the mean is rounding: nothing can be told from it.
_NO_SPREAD = 1e-9


@dataclasses.dataclass(frozen=True)
class Paired:
    """What paired differences show, one for each seed.

    Attributes:
        n: how many there are.
        mean: of them.
        sd: their standard deviation (of n − 1); None for one.
        low: lower end of the 95 % confidence interval of the mean, by Student's t with n − 1
            degrees of freedom; None without a spread.
        high: the upper end.
        p: two-sided, of the paired t test that the mean is 0; None without a spread.
    """

    n: int
    mean: float
    sd: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None
    p: Optional[float] = None

    @property
    def starred(self) -> bool:
        """Whether the mean is told from 0: p < 0.01."""
        return self.p is not None and self.p < STARRED

    @property
    def includes_zero(self) -> bool:
        """Whether the interval includes 0; True where there is none."""
        return self.low is None or self.high is None or self.low <= 0.0 <= self.high


def paired(differences: Sequence[float], confidence: float = CONFIDENCE) -> Optional[Paired]:
    """Summarises differences of pairs, such as a policy's value minus the baseline's for each seed.

    Args:
        differences: finite numbers.
        confidence: of the interval, from 0 to 1.

    Returns:
        The summary; None without differences. Differences that are all alike have no spread
        to judge them by, so neither interval nor p, but for zeros: these have p = 1.
    """
    values = np.asarray(differences, np.float64)
    if not values.size:
        return None
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Paired(1, mean)
    sd = float(values.std(ddof=1))
    if not values.any():
        return Paired(n, mean, 0.0, 0.0, 0.0, 1.0)
    if sd <= _NO_SPREAD * abs(mean):
        return Paired(n, mean, sd)
    error = sd / math.sqrt(n)
    half = float(scipy.stats.t.ppf((1.0 + confidence) / 2.0, n - 1)) * error
    p = 2.0 * float(scipy.stats.t.sf(abs(mean) / error, n - 1))
    return Paired(n, mean, sd, mean - half, mean + half, p)


def spread(values: Sequence[float]) -> Optional[float]:
    """The standard deviation over seeds (of n − 1); None for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
