"""Speed-up at several targets; who did not get there is a bound."""

import pytest

from classact.experiments import curves
from classact.experiments.compare import comparison, targets


def load(make_run, name, **options):
    return curves.load_run(make_run(name, **options))


def test_a_run_of_twice_the_speed_is_so_at_every_target(make_run):
    baseline = load(make_run, "u")
    fast = load(make_run, "c", policy="classact", speed=2.0)
    for target in targets.default_targets([0.3]):
        found = targets.reached(fast, [baseline], target)
        # Smoothing puts both a little later, by the same number of updates.
        assert found.fewer == pytest.approx(0.5, abs=0.06)
        assert found.bound == ""


def test_who_did_not_get_there_is_a_bound(make_run):
    baseline = load(make_run, "u")
    slow = load(make_run, "s", policy="classact", speed=0.8)
    fast = load(make_run, "c", policy="classact", speed=1.25)
    found = targets.reached(slow, [baseline], targets.Target(share=1.0))
    assert (found.updates, found.bound) == (None, "<")
    # It made as many updates as the baseline: it saved less than none of them.
    assert found.fewer == pytest.approx(0.0)
    high = targets.Target(value=0.9)
    found = targets.reached(fast, [baseline], high)
    assert found.bound == ">"
    assert found.fewer == pytest.approx(1 - found.updates / 1500)
    assert targets.reached(slow, [baseline], high) == targets.Reached(None, None)


def test_of_several_baselines_the_mean_counts(make_run):
    baselines = [load(make_run, "u"), load(make_run, "u2", speed=2.0, seed=1)]
    run = load(make_run, "c", policy="classact")
    half = targets.Target(share=0.5)
    own = [curves.updates_to_reach(other.curve, 0.5 * curves.final(other.curve)) for other in baselines]
    value = 0.5 * sum(curves.final(other.curve) for other in baselines) / 2
    expected = 1 - curves.updates_to_reach(run.curve, value) / (sum(own) / 2)
    assert targets.reached(run, baselines, half).fewer == pytest.approx(expected)


def test_without_evaluations_there_is_nothing(make_run):
    baseline, empty = load(make_run, "u"), load(make_run, "e", status=None, done=0)
    target = targets.Target(share=1.0)
    assert targets.reached(empty, [baseline], target) is None
    assert targets.reached(baseline, [empty], target) is None


def test_the_full_target_is_the_table_s(make_run):
    compared = comparison.compare([make_run("u"), make_run("c", policy="classact", speed=1.5)], targets=[0.2])
    row = compared.groups[1].rows[0]
    assert row.at_targets[targets.FULL].fewer == pytest.approx(row.fewer_updates)
    assert len(row.at_targets) == len(compared.targets_tried) == 5
