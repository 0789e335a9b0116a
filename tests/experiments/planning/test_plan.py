"""Costs and break-even against the formulas that they stand for, and against the paper's own figures."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments import ledger
from classact.experiments.planning import plan
from classact.selection import policies

# A scorer that costs a thousand times as much as its learner is none.
macs = st.integers(10**6, 10**9)


def network(name, forward, again=0, parameters=1000):
    return plan.Network(name, forward, 3 * forward + again, parameters)


def setting(policy, learner, scorer, rho=2, steps=100, batch_size=64, **changes):
    selecting = policies.get(policy)
    learner, scorer = network("learner", learner), network("scorer", scorer)
    own = {"pretraining_macs": 3.0 * scorer.forward_macs * steps * batch_size}
    if selecting.reference != "fixed":
        own = {"reference_super_batch": 10 * batch_size} if selecting.reference else {}
    item = plan.DataSetPlan("only", selecting, batch_size, round(rho * batch_size), **{**own, **changes})
    return plan.Setting(steps, steps, learner, scorer, (item,))


def counted(found, name):
    return next(item for item in plan.countings(found) if item.name == name)


VIT_B, VIT_TI = 17.56e9, 1.254e9


@pytest.mark.parametrize(
    ("policy", "speedup", "by_paper", "with_online"),
    [("rho", 0.0, -78.6, -78.6), ("classact", 0.18, 3.1, -2.8), ("classact_online", 0.17, 2.0, -4.0)],
)
def test_table_1(policy, speedup, by_paper, with_online):
    found = setting(policy, VIT_B, VIT_TI)
    savings = [100 * counted(found, name).saving(speedup) for name in (plan.PAPER, plan.WITH_ONLINE)]
    assert [round(saving, 1) for saving in savings] == [by_paper, with_online]
    if policy == "classact":
        # The reference was trained as long as the uniform run.
        assert plan.full(found).saving(speedup) == pytest.approx(savings[1] / 100)


def test_a_joint_choice_is_in_every_way_to_count():
    plain, found = (setting("jest", 100, 10, joint_macs=macs) for macs in (0.0, 640.0))
    assert plan.predicted_ledger(found)["joint_selection_macs"] == 100 * 640
    for name in (plan.PAPER, plan.WITH_ONLINE, plan.FULL):
        assert counted(found, name).update_macs == pytest.approx(counted(plain, name).update_macs + 640)
        assert counted(found, name).once_macs == pytest.approx(counted(plain, name).once_macs)


@given(macs, macs, st.integers(1, 20), st.floats(-0.9, 0.9), st.integers(1, 1000), st.integers(1, 1000))
def test_everything_counted_is_the_sum_of_its_parts(learner, scorer, rho, speedup, steps, reference_steps):
    """cost ÷ uniform's = β·(1 + (2ρ + 3)·F_s/(3·F_l)) + (reference's updates ÷ uniform's)·F_s/F_l."""
    pretraining = 3.0 * scorer * 64 * reference_steps
    found = setting("classact", learner, scorer, rho, steps, pretraining_macs=pretraining)
    ratio = scorer / learner
    expected = (1 - speedup) * (1 + (2 * rho + 3) * ratio / 3) + reference_steps / steps * ratio
    assert 1 - plan.full(found).saving(speedup) == pytest.approx(expected)


@given(
    st.sampled_from([name for name in policies.names() if name != "uniform"]), macs, macs, st.integers(1, 9)
)
def test_at_break_even_nothing_is_saved_or_lost(policy, learner, scorer, rho):
    for item in plan.countings(setting(policy, learner, scorer, rho), reference_runs=4):
        if item.break_even is not None:
            assert item.saving(item.break_even) == pytest.approx(0, abs=1e-6)
            assert item.saving(item.break_even + 0.01) > 0 > item.saving(item.break_even - 0.01)
        else:
            assert item.saving(1.0) <= 0


@given(st.sampled_from(policies.names()), macs, macs, st.integers(1, 9), st.floats(-0.9, 0.9))
def test_the_papers_formula_is_the_ledgers(policy, learner, scorer, rho, speedup):
    found = setting(policy, learner, scorer, rho)
    own = policies.get(policy)
    for name, online in ((plan.PAPER, False), (plan.WITH_ONLINE, True)):
        expected = ledger.compute_speedup(own, learner, scorer, rho, speedup, include_online_training=online)
        assert counted(found, name).saving(speedup) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_reference_is_paid_in_three_ways():
    found = setting("classact", 1000, 100)
    ways = {item.name: item.once_macs for item in plan.countings(found, reference_runs=4)}
    paid = found.data_sets[0].pretraining_macs
    assert list(ways)[2:] == [
        plan.FULL, f"{plan.FULL}, 1/4 of the reference", f"{plan.FULL}, without the reference",
    ]  # fmt: skip
    assert list(ways.values())[2:] == [paid, paid / 4, 0]
    # One that trains in the run, and one that costs nothing, are paid in one way.
    assert len(plan.countings(setting("classact_online", 1000, 100))) == 3
    assert len(plan.countings(setting("classact", 1000, 100, pretraining_macs=0.0))) == 3


def test_a_reference_that_costs_more_than_the_uniform_run_never_pays():
    found = setting("easy_reference", 1000, 100, pretraining_macs=3.0 * 1000 * 6400)
    assert plan.full(found).break_even is None
    assert counted(found, f"{plan.FULL}, without the reference").break_even is not None


def test_data_sets_add_up_and_the_uniform_ones_are_no_overhead():
    both = setting("classact", 1000, 100)
    uniform = plan.DataSetPlan("other", policies.get("uniform"), 32, 32)
    found = dataclasses.replace(both, data_sets=(*both.data_sets, uniform))
    alone, together = plan.full(both), plan.full(found)
    assert together.update_macs == alone.update_macs + 32 * 3000
    assert together.uniform_macs == alone.uniform_macs + 100 * 32 * 3000
    assert (found.scored, found.batch_size) == (128, 96)
    assert counted(found, plan.PAPER).update_macs == counted(both, plan.PAPER).update_macs + 32 * 3000


def test_what_the_learner_computes_again_counts_on_both_sides_alike():
    plain = setting("classact", 1000, 100)
    remat = dataclasses.replace(plain, learner=network("learner", 1000, again=700))
    assert plan.full(remat).uniform_macs == 3700 / 3000 * plan.full(plain).uniform_macs
    assert plan.full(remat).update_macs == plan.full(plain).update_macs + 64 * 700
    assert counted(remat, plan.PAPER) == counted(plain, plan.PAPER)


def alternative(*changes, scorer):
    return plan.Alternative(changes, setting("classact", 1000, scorer))


def test_suggestions_pay_and_change_as_little_as_they_can():
    small, tiny = ("scorer.model", "small"), ("scorer.model", "tiny")
    others = [
        alternative(small, scorer=150),
        alternative(tiny, ("filter_ratio", "0.25"), scorer=5),
        alternative(tiny, scorer=10),
    ]
    own = setting("classact", 1000, 200)
    found = plan.suggestions(own, others, speedup=0.16)
    assert [item.changes for item in found] == [(tiny,), (tiny, ("filter_ratio", "0.25"))]
    assert plan.suggestions(own, others, speedup=0.01) == []
    assert plan.suggestions(own, others, speedup=0.9) == []  # It pays as it is.
    assert len(plan.suggestions(own, others, speedup=0.16, most=1)) == 1
    assert plan.least(own, others) is others[1]
    assert plan.least(setting("classact", 1000, 1), others) is None
