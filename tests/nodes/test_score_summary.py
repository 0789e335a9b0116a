import numpy as np
import pytest

from classact.nodes import score_summary


def test_percentiles_of_what_is_finite():
    scores = np.r_[np.arange(101.0), np.nan, np.inf].astype(np.float32)
    found = score_summary.summary(np.random.default_rng(0).permutation(scores))
    assert found.pop("score/mean") == pytest.approx(50)
    assert found == pytest.approx({f"score/p{p:02}": p for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)})


def test_without_a_finite_score_there_is_nothing():
    assert score_summary.summary(np.full(3, np.nan, np.float32)) == {}
