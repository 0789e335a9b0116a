"""Intervals and p against an exact permutation test and a simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments.compare import statistics

VALUES = st.lists(st.floats(-100, 100, allow_nan=False), min_size=2, max_size=12).filter(
    lambda values: np.std(values) > 1e-3
)


@given(VALUES)
def test_the_interval_is_where_the_test_stops_rejecting(values):
    found = statistics.paired(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    for end in (found.low, found.high):
        assert scipy.stats.ttest_1samp(values, end).pvalue == pytest.approx(0.05, abs=1e-6)
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(values, 0.0).pvalue, abs=1e-9)
    assert found.includes_zero == (found.p >= 0.05)


@given(VALUES, st.floats(0.01, 100), st.booleans())
def test_it_does_not_depend_on_the_unit_or_the_sign(values, unit, turned):
    unit = -unit if turned else unit
    found, scaled = statistics.paired(values), statistics.paired([unit * value for value in values])
    assert scaled.p == pytest.approx(found.p, rel=1e-6, abs=1e-12)
    assert sorted((scaled.low, scaled.high)) == pytest.approx(
        sorted((unit * found.low, unit * found.high)), rel=1e-6, abs=1e-6
    )


def test_p_is_near_that_of_all_signs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(0.5, 1.0, 10)
        signs = np.array(list(itertools.product((-1, 1), repeat=10)))
        exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
        assert statistics.paired(values).p == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_covers_the_truth_in_95_of_100_cases(n):
    draws = np.random.default_rng(1).normal(0.3, 2.0, (2000, n))
    found = [statistics.paired(values) for values in draws]
    covered = np.mean([item.low <= 0.3 <= item.high for item in found])
    # Three standard errors.
    assert covered == pytest.approx(0.95, abs=0.015)


def test_a_star_is_rare_without_an_effect():
    draws = np.random.default_rng(2).normal(0.0, 1.0, (2000, 3))
    assert np.mean([statistics.paired(values).starred for values in draws]) == pytest.approx(0.01, abs=0.007)
    assert statistics.paired([0.10, 0.11, 0.12]).starred
    assert not statistics.paired([0.1, 0.3, 0.2]).starred


def test_what_cannot_be_judged():
    assert statistics.paired([]) is None
    (one, alike, zeros) = map(statistics.paired, ([0.2], [0.1, 0.1, 0.1], [0.0, 0.0]))
    assert (one.n, one.mean, one.low, one.p) == (1, 0.2, None, None)
    assert (alike.n, alike.low, alike.p) == (3, None, None)
    assert one.includes_zero and alike.includes_zero and not alike.starred
    assert (zeros.low, zeros.high, zeros.p) == (0.0, 0.0, 1.0)
    assert statistics.spread([1.0]) is None
    assert statistics.spread([1.0, 3.0]) == pytest.approx(2**0.5)
