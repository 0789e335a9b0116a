"""Priorities for any floats at all: finite, positive, in order, and counted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from classact.selection import priorities
from classact.selection.priorities import MAX_LOG_PRIORITY, MIN_LOG_PRIORITY, PriorityConfig

any_scores = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 30),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)
huge_scores = hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(allow_nan=True))
configs = st.builds(
    PriorityConfig,
    temperature=st.floats(1e-300, 1e300, exclude_min=True),
    score_shift=st.floats(-1e300, 1e300),
)


@given(st.one_of(any_scores, huge_scores), configs)
def test_priorities_are_always_usable(scores, config):
    found = priorities.priorities(scores, config)
    np.testing.assert_array_equal(found.keep, np.isfinite(scores))
    assert found.values.dtype == np.float64
    assert found.values.shape == scores.shape
    assert np.isfinite(found.values).all()
    assert (found.values[found.keep] > 0).all()
    assert (found.values[~found.keep] == 0).all()
    # A table full of the largest ones still has a finite sum.
    assert np.isfinite(found.values * 1e9).all()


@given(st.one_of(any_scores, huge_scores), configs)
def test_priorities_have_the_order_of_the_scores(scores, config):
    found = priorities.priorities(scores, config)
    order = np.argsort(np.where(found.keep, scores, 0.0)[found.keep], kind="stable")
    assert (np.diff(found.values[found.keep][order]) >= 0).all()


@given(
    hnp.arrays(np.float64, 8, elements=st.floats(-40, 40)),
    st.floats(0.1, 10),
    st.floats(-20, 20),
)
def test_inside_the_window_the_ratios_are_those_of_the_softmax(scores, temperature, shift):
    found = priorities.priorities(scores, PriorityConfig(temperature, shift))
    logits = (scores - shift) / temperature
    inside = (logits >= MIN_LOG_PRIORITY) & (logits <= MAX_LOG_PRIORITY)
    assert found.saturated == int((~inside).sum())
    kept = logits[inside]
    if kept.size:
        expected = np.exp(kept - kept.max())
        np.testing.assert_allclose(found.values[inside] / found.values[inside].max(), expected, rtol=1e-9)


def test_values_by_hand():
    found = priorities.priorities(np.array([0.0, 1.0, -2.0]), PriorityConfig(0.5, 1.0))
    np.testing.assert_allclose(found.values, np.exp([-2.0, 0.0, -6.0]))
    assert found.saturated == 0


def test_what_a_double_cannot_hold_is_clipped_and_counted():
    scores = np.array([1e30, -1e30, 3.0, np.nan, np.inf, -np.inf])
    found = priorities.priorities(scores, PriorityConfig())
    assert found.saturated == 2
    np.testing.assert_array_equal(found.keep, [True, True, True, False, False, False])
    np.testing.assert_allclose(
        found.values, [math.exp(MAX_LOG_PRIORITY), math.exp(MIN_LOG_PRIORITY), math.exp(3.0), 0, 0, 0]
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_bad_temperature_is_named(temperature):
    with pytest.raises(ValueError, match="temperature="):
        PriorityConfig(temperature=temperature)


@pytest.mark.parametrize("shift", [math.inf, math.nan])
def test_a_bad_shift_is_named(shift):
    with pytest.raises(ValueError, match="score_shift="):
        PriorityConfig(score_shift=shift)


@given(
    hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-100, 100)), st.data(), st.integers(0, 99)
)
def test_gumbel_top_k_draws_k_different_ones(scores, data, seed):
    k = data.draw(st.integers(0, len(scores)))
    chosen = priorities.gumbel_top_k(scores, k, 0.7, np.random.default_rng(seed))
    assert len(chosen) == k
    assert len(set(chosen.tolist())) == k
    assert ((chosen >= 0) & (chosen < len(scores))).all()


def test_gumbel_top_k_repeats_with_its_seed_and_follows_a_low_temperature():
    scores = np.array([0.0, 3.0, 1.0, 2.0])
    draw = lambda seed: priorities.gumbel_top_k(scores, 3, 1.0, np.random.default_rng(seed))  # noqa: E731
    np.testing.assert_array_equal(draw(5), draw(5))
    cold = priorities.gumbel_top_k(scores, 3, 1e-3, np.random.default_rng(0))
    np.testing.assert_array_equal(cold, [1, 3, 2])


@pytest.mark.parametrize("k", [-1, 4])
def test_gumbel_top_k_refuses_an_impossible_k(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        priorities.gumbel_top_k(np.zeros(3), k, 1.0, np.random.default_rng(0))
