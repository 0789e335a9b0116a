"""How the scores of the last batches are distributed, as metrics."""

import numpy as np

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


def summary(scores: np.ndarray) -> dict[str, float]:
    """The mean and the percentiles of scores.

    Args:
        scores: float32[N]; those that are not finite are left out.

    Returns:
        `score/mean`, and `score/p01` to `score/p99` of `PERCENTILES`; empty without a finite
        score.
    """
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return {}
    values = np.percentile(finite, PERCENTILES)
    return {
        "score/mean": float(finite.mean()),
        **{
            f"score/p{percentile:02}": float(value)
            for percentile, value in zip(PERCENTILES, values, strict=True)
        },
    }
