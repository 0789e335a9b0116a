"""What two runs of one law show is what they are said to show."""

import numpy as np
import pytest

from classact.experiments import curves
from classact.experiments.compare import chance

STEPS = np.linspace(50, 1500, 30)
LAW = 0.6 * (1 - np.exp(-STEPS / 400))


def run(rng, noise, lasting=0.0):
    """A run of the law of the review: noise of its own on each evaluation, and an offset that lasts."""
    values = LAW + noise * rng.standard_normal(len(STEPS)) + lasting * rng.standard_normal()
    return list(zip(STEPS.tolist(), values.tolist(), strict=True))


def fewer(one, baseline):
    target = curves.final(baseline)
    updates = curves.updates_to_reach(one, target)
    return None if updates is None else 1 - updates / curves.updates_to_reach(baseline, target)


def share_held(rng, noise, lasting, finals=(), pairs=60):
    """How many of pairs of one law are held, and how many are above what they may be."""
    held = above = 0
    for _ in range(pairs):
        one, baseline = run(rng, noise, lasting), run(rng, noise, lasting)
        found, share = chance.of_one_law(baseline, finals, pairs=500), fewer(one, baseline)
        held += found.holds(share)
        above += share is not None and share > found.high
    return held / pairs, above / pairs


@pytest.mark.parametrize(("noise", "lasting"), [(0.003, 0.0), (0.01, 0.0), (0.004, 0.01)])
def test_pairs_of_one_law_are_within_what_is_told_of_them(noise, lasting):
    held, above = share_held(np.random.default_rng(0), noise, lasting)
    assert held >= 0.9
    assert above <= 0.07


def test_other_seeds_tell_what_lasts():
    rng = np.random.default_rng(1)
    finals = [[curves.final(run(rng, 0.003, 0.03)) for _ in range(4)] for _ in range(3)]
    noise = chance.Variance(0.003**2, 10)
    assert chance.between_runs(finals, noise).value == pytest.approx(0.03**2, rel=0.8)
    # Ten times the scatter of an evaluation is more than is guessed without them.
    assert share_held(rng, 0.003, 0.03)[0] < 0.9
    assert share_held(rng, 0.003, 0.03, finals)[0] >= 0.9
    alike = [[0.6, 0.6001, 0.5999, 0.6]] * 4
    baseline = run(rng, 0.003)
    few, many = (chance.of_one_law(baseline, found) for found in ((), alike))
    assert many.high < few.high
    assert (many.over_seeds, few.over_seeds) == (True, False)


def test_the_savings_of_the_review_are_none():
    """The review of the core, 3: pairs of one law save up to 13 %, and the mean of those that do is 2 %."""
    rng = np.random.default_rng(3)
    found = []
    while len(found) < 20:
        one, baseline = run(rng, 0.01), run(rng, 0.01)
        share = fewer(one, baseline)
        if share is not None and 0.02 < share < 0.15:
            found.append(chance.of_one_law(baseline, pairs=500).holds(share))
    assert all(found)


def test_a_real_gain_is_none_of_chance():
    rng = np.random.default_rng(2)
    baseline = run(rng, 0.005)
    faster = [(step / 3, value) for step, value in run(rng, 0.005)]
    found = chance.of_one_law(baseline)
    assert fewer(faster, baseline) > 0.55
    assert not found.holds(fewer(faster, baseline))
    assert found.holds(None)


def test_the_scatter_is_that_of_the_evaluations():
    rng = np.random.default_rng(4)
    found = chance.scatter([run(rng, 0.01) for _ in range(40)])
    assert np.sqrt(found.value) == pytest.approx(0.01, rel=0.1)
    assert np.sqrt(chance.scatter([run(rng, 0.0)]).value) < 1e-3


def test_the_same_again():
    baseline = run(np.random.default_rng(5), 0.01)
    assert chance.of_one_law(baseline) == chance.of_one_law(baseline)


def test_simulated_crossings_are_those_of_the_curves():
    rng = np.random.default_rng(6)
    values = LAW + 0.02 * rng.standard_normal((50, len(STEPS)))
    targets = rng.uniform(0.2, 0.65, 50)
    found = chance._first_crossings(STEPS, chance._smooth(values), targets)
    for one, target, crossing in zip(values, targets, found, strict=True):
        expected = curves.updates_to_reach(list(zip(STEPS, one, strict=True)), target)
        assert (expected is None and np.isnan(crossing)) or crossing == pytest.approx(expected)


def test_too_little_to_tell():
    short = run(np.random.default_rng(7), 0.01)[:5]
    assert chance.scatter([short]) is None
    assert chance.of_one_law(short) is None
