"""Softmax sampling as a race: keys for any floats at all, and the law of every draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from race_law import LEVEL, Table, p_value

from classact.selection import race
from classact.selection.race import MAX_LOG_WEIGHT, Clock

any_scores = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 30),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)
huge_scores = hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(allow_nan=True))
temperatures = st.floats(1e-300, 1e300, exclude_min=True)
weights_of = st.lists(st.floats(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT), min_size=1, max_size=20).map(np.array)


@given(st.one_of(any_scores, huge_scores), temperatures)
def test_log_weights_are_always_usable(scores, temperature):
    found = race.log_weights(scores, temperature)
    np.testing.assert_array_equal(found.keep, np.isfinite(scores))
    assert found.values.dtype == np.float64
    assert found.values.shape == scores.shape
    assert (np.abs(found.values) <= MAX_LOG_WEIGHT).all()
    assert (found.values[~found.keep] == 0).all()
    order = np.argsort(scores[found.keep], kind="stable")
    assert (np.diff(found.values[found.keep][order]) >= 0).all()


def test_log_weights_by_hand():
    found = race.log_weights(np.array([0.0, 1.0, -2.0]), 0.5)
    np.testing.assert_array_equal(found.values, [0.0, 2.0, -4.0])
    assert found.saturated == 0


def test_what_a_key_cannot_hold_is_clipped_and_counted():
    scores = np.array([1e30, -1e30, 3.0, np.nan, np.inf, -np.inf])
    found = race.log_weights(scores, 1.0)
    assert found.saturated == 2
    np.testing.assert_array_equal(found.keep, [True, True, True, False, False, False])
    np.testing.assert_array_equal(found.values, [MAX_LOG_WEIGHT, -MAX_LOG_WEIGHT, 3.0, 0, 0, 0])


@given(st.lists(weights_of, max_size=6), weights_of, st.integers(0, 99))
def test_keys_are_finite_and_never_behind_the_clock(drawn, weights, seed):
    rng = np.random.default_rng(seed)
    clock = Clock()
    for before in drawn:
        after = clock.after(np.sort(clock.keys(before, rng)))
        assert list(after.levels) == sorted(after.levels, reverse=True)
        assert Clock.from_json(after.to_json()) == after
        clock = after
    keys = clock.keys(weights, rng)
    assert np.isfinite(keys).all()
    # None is behind the clock: it is after it, or on a level of its own far below.
    if clock.levels:
        now = clock.levels[-1]
        assert ((keys >= now) | (keys < now - 5)).all()


def test_keys_are_the_logarithm_of_the_time_and_the_run():
    weights = np.array([-1.0, 0.5, 3.0])
    keys = Clock((2.0,)).keys(weights, np.random.default_rng(5))
    runs = np.exp(-weights - np.random.default_rng(5).gumbel(size=3))
    np.testing.assert_allclose(keys, np.log(np.exp(2.0) + runs))


def test_what_would_vanish_beside_the_time_counts_on_a_level_below_and_is_drawn_first():
    clock = Clock((2.0,)).after([60.0])
    keys = clock.keys(np.array([0.0, 0.0, -55.0]), np.random.default_rng(0))
    assert (keys[:2] < 10).all() and keys[2] > 60
    below = clock.after([keys[:2].min()])
    assert below.levels == (60.0, keys[:2].min())
    # What comes now is counted from there; what is too light for it from above.
    later = below.keys(np.array([0.0, -55.0]), np.random.default_rng(1))
    assert below.levels[1] < later[0] < 10
    assert later[1] > 60
    assert below.after([keys[:2].max(), keys[2]]).levels == (keys[2],)


@pytest.mark.parametrize(
    ("keys", "time"), [([6.0, 7.0], 7.0), ([4.0, 7.0, 6.5], 7.0), ([6.0, 3.0, 3.1, 3.2], 3.2), ([4.0], 5.0)]
)
def test_the_clock_goes_back_only_to_where_all_lately_was(keys, time):
    assert Clock((5.0,)).after(keys) == Clock((time,))


def scores_of(spread, drift):
    """Log weights about `spread` nats wide, that rise by `drift` nats an update."""
    return lambda rng, update, size: rng.normal(drift * update, spread / 4, size)


def simulate(log_weights, updates, delay=0, batch=64, super_batch=128, capacity=512, seed=0):
    """A table in lockstep: a super-batch comes, a batch is drawn; the clock is known `delay` updates late."""
    rng, table = np.random.default_rng(seed), Table(capacity, seed)
    clocks, keys, came = [Clock()], {}, 0
    for update in range(updates):
        weights, ids = log_weights(rng, update, super_batch), np.arange(came, came + super_batch)
        came += super_batch
        keys |= dict(
            zip(ids.tolist(), clocks[max(0, len(clocks) - 1 - delay)].keys(weights, rng), strict=True)
        )
        table.insert(ids, weights)
        keys = {item: keys[item] for item in table.ids}
        drawn = np.array(sorted(keys, key=keys.get)[:batch])
        table.draw(drawn)
        clocks.append(clocks[-1].after([keys.pop(item) for item in drawn.tolist()]))
    return table


@pytest.mark.parametrize("spread", [5, 30, 100, 300])
@pytest.mark.parametrize("drift", [0.0, 3.0, -3.0])
def test_every_draw_is_from_the_softmax_over_what_is_there(spread, drift):
    simulate(scores_of(spread, drift), updates=100).assert_law()


def test_without_the_time_new_examples_are_favoured_and_the_test_of_the_law_sees_it():
    assert p_value(simulate(scores_of(5, 0.0), updates=100, delay=100).by_age) < LEVEL


@pytest.mark.parametrize("delay", [0, 5])
@pytest.mark.parametrize("temperature", [1.0, 0.25, 0.05])
def test_the_share_above_the_median_loss(temperature, delay):
    """Check values of an exact simulation: losses ~ Gamma(4, 1.7), easy_reference's score.

    A clock that is late draws younger ones, not others by their scores.
    """
    losses = []

    def log_weights(rng, update, size):
        losses.append(np.clip(rng.gamma(4, 1.7, size), 0.01, 16.0))
        return -losses[-1] / temperature

    table = simulate(log_weights, updates=160, delay=delay)
    if not delay:
        table.assert_law()
    high = np.mean(np.concatenate(losses)[table.drawn[512:]] > 6.24)
    assert high == pytest.approx({1.0: 0.112, 0.25: 0.030, 0.05: 0.012}[temperature], abs=0.015)


@given(
    hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-100, 100)), st.data(), st.integers(0, 99)
)
def test_gumbel_top_k_draws_k_different_ones(scores, data, seed):
    k = data.draw(st.integers(0, len(scores)))
    chosen = race.gumbel_top_k(scores, k, 0.7, np.random.default_rng(seed))
    assert len(chosen) == k
    assert len(set(chosen.tolist())) == k
    assert ((chosen >= 0) & (chosen < len(scores))).all()


def test_gumbel_top_k_repeats_with_its_seed_and_follows_a_low_temperature():
    scores = np.array([0.0, 3.0, 1.0, 2.0])
    draw = lambda seed: race.gumbel_top_k(scores, 3, 1.0, np.random.default_rng(seed))  # noqa: E731
    np.testing.assert_array_equal(draw(5), draw(5))
    cold = race.gumbel_top_k(scores, 3, 1e-3, np.random.default_rng(0))
    np.testing.assert_array_equal(cold, [1, 3, 2])


@pytest.mark.parametrize("k", [-1, 4])
def test_gumbel_top_k_refuses_an_impossible_k(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        race.gumbel_top_k(np.zeros(3), k, 1.0, np.random.default_rng(0))
