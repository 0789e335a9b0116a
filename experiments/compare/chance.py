"""What two runs of one law would show: the figure that a single pair has to beat.

A run reaches its baseline's final value early or late by chance alone, and the rule favours
it: both curves scatter, and a crossing counts where it comes first. So pairs of runs of
one law, the baseline's, are simulated, and measured exactly as the real ones are
(`curves.updates_to_reach`). A saving that many such pairs show is none.
"""

import dataclasses
from collections.abc import Sequence
from typing import Optional

import numpy as np
import scipy.interpolate

from classact.experiments import curves
from classact.experiments.curves import Curve

# Fewer evaluations do not tell the law from the scatter.
FEWEST = 6
_PAIRS = 4000
_SEED = 20_231_211
# Var(y[i−1] − 2·y[i] + y[i+1]) of independent noise of variance 1.
_OF_SECOND_DIFFERENCE = 6.0
# Second differences overlap: n of them tell as much as so many independent ones.
_INDEPENDENT = 0.51
# How much more final values vary between runs than single evaluations do within one (standard
# deviations), where nothing else is known, and what that is worth as an estimate: on the
# demonstration's icons 2.0 to 2.4 in five groups of three seeds, on digits 5 in twelve seeds.
_RUNS_TO_EVALUATIONS, _WORTH = 2.5, 3.0


@dataclasses.dataclass(frozen=True)
class Chance:
    """What two runs of one law show, in 95 of 100 pairs.

    Attributes:
        low: the lower end, as a share of updates that were not needed; None: the run does not reach
            its baseline's final value.
        high: the upper end; None likewise.
        reached: share of the pairs in which the value is reached.
        final_gain: how much higher than the other's one's final value is at most.
        over_seeds: whether several seeds of some group tell how much whole runs differ; otherwise
            that is guessed from the evaluations' scatter.
    """

    low: Optional[float]
    high: Optional[float]
    reached: float
    final_gain: float
    over_seeds: bool

    def holds(self, fewer: Optional[float]) -> bool:
        """Whether a share, or None for not reached, is within."""
        if fewer is None:
            return self.low is None
        return (self.low is None or fewer >= self.low) and self.high is not None and fewer <= self.high


@dataclasses.dataclass(frozen=True)
class Variance:
    """An estimate of a variance, and how many independent values it is worth."""

    value: float
    freedom: float

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """What the variance may be, float64[count]: value · freedom / χ²(freedom)."""
        return self.value * self.freedom / rng.chisquare(self.freedom, count)


def scatter(found: Sequence[Curve]) -> Optional[Variance]:
    """The variance of single evaluations about their curve, of the later halves of curves together.

    By second differences, which a smooth curve hardly has: Gasser, Sroka & Jennen-Steinmetz (1986).

    Returns:
        The estimate, or None if the curves have fewer than `FEWEST` evaluations each.
    """
    differences = [
        np.diff([value for _, value in curve][len(curve) // 2 - 1 :], 2)
        for curve in found
        if len(curve) >= FEWEST
    ]
    values = np.concatenate(differences) if differences else np.empty(0)
    if not values.size:
        return None
    return Variance(float(np.mean(values**2)) / _OF_SECOND_DIFFERENCE, max(1.0, _INDEPENDENT * len(values)))


def between_runs(finals: Sequence[Sequence[float]], noise: Variance) -> Variance:
    """The variance of final values between the seeds of a group, of all groups together.

    To what the seeds tell comes a guess from the scatter within a run, worth a few seeds: two
    seeds alone tell next to nothing, and one nothing.

    Args:
        finals: of each group its runs' final values.
        noise: of single evaluations.
    """
    several = [np.asarray(values) for values in finals if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(float(np.sum((values - values.mean()) ** 2)) for values in several)
    guess = _RUNS_TO_EVALUATIONS**2 * noise.value
    return Variance((squares + _WORTH * guess) / (freedom + _WORTH), freedom + _WORTH)


def of_one_law(
    baseline: Curve, finals: Sequence[Sequence[float]] = (), pairs: int = _PAIRS
) -> Optional[Chance]:
    """Simulates pairs of runs of a baseline's law.

    The law is a smoothing spline through the baseline's evaluations (by generalised
    cross-validation). Each run of a pair has noise of its own on each evaluation, and an offset
    that lasts, such that final values vary as `between_runs` says. Pairs of one seed have more
    in common: for them it errs on the wide side.

    Args:
        baseline: its evaluations as measured.
        finals: as for `between_runs`.
        pairs: how many to simulate.

    Returns:
        The interval, always the same for the same arguments; None if there are fewer than
        `FEWEST` evaluations.
    """
    noise = scatter([baseline])
    if noise is None:
        return None
    runs = between_runs(finals, noise)
    steps, values = np.array(baseline, np.float64).T
    law = scipy.interpolate.make_smoothing_spline(steps, values)(steps)
    rng = np.random.default_rng(_SEED)
    single = noise.draw(rng, pairs)[:, None, None]
    simulated = law + np.sqrt(single) * rng.standard_normal((pairs, 2, len(steps)))
    of_mean = single / curves.SMOOTHED_EVALUATIONS
    lasting = np.maximum(runs.draw(rng, pairs)[:, None, None] - of_mean, 0.0)
    simulated += np.sqrt(lasting) * rng.standard_normal((pairs, 2, 1))
    smoothed = _smooth(simulated)
    targets = smoothed[:, 1, -1]
    taken = _first_crossings(steps, smoothed[:, 0], targets)
    own = _first_crossings(steps, smoothed[:, 1], targets)
    fewer = np.where(np.isnan(taken), -np.inf, 1.0 - taken / own)
    low, high = (float(np.quantile(fewer, share, method="higher")) for share in (0.025, 0.975))
    return Chance(
        None if np.isinf(low) else low,
        None if np.isinf(high) else high,
        float(np.mean(np.isfinite(fewer))),
        float(np.quantile(smoothed[:, 0, -1] - targets, 0.975)),
        any(len(values) > 1 for values in finals),
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    """`curves.smooth` of many curves at once, float64[..., N]."""
    width = curves.SMOOTHED_EVALUATIONS
    sums = np.cumsum(values, axis=-1)
    sums[..., width:] = sums[..., width:] - np.cumsum(values, axis=-1)[..., :-width]
    return sums / np.minimum(np.arange(1, values.shape[-1] + 1), width)


def _first_crossings(steps: np.ndarray, smoothed: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Where curves float64[P, N] first reach targets float64[P], as `curves.updates_to_reach`; or NaN."""
    reached = smoothed >= targets[:, None]
    first = reached.argmax(axis=1)
    before = np.maximum(first - 1, 0)
    row = np.arange(len(smoothed))
    low, high = smoothed[row, before], smoothed[row, first]
    share = np.divide(targets - low, high - low, out=np.zeros(len(row)), where=high > low)
    crossing = steps[before] + (steps[first] - steps[before]) * share
    return np.where(reached.any(axis=1), np.where(first == 0, steps[0], crossing), np.nan)
