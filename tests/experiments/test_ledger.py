import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments import ledger
from classact.selection import policies

TI, B = 1.254, 17.56  # GMACs of ViT-Ti and ViT-B at 224x224, patch 16.

macs = st.floats(1.0, 1e12)
ratios = st.floats(1.0, 20.0)
speedups = st.floats(-1.0, 0.95)
all_policies = st.sampled_from([policies.get(name) for name in policies.names()])


@pytest.mark.parametrize(
    ("policy", "speedup", "with_online_training", "expected"),
    [
        ("rho", 0.0, False, -78.6),
        ("classact", 0.18, False, 3.1),
        ("classact_ho", 0.18, False, 3.1),
        ("classact_online", 0.17, False, 2.0),
        ("classact", 0.18, True, -2.8),
        ("classact_online", 0.17, True, -4.0),
        ("rho", 0.0, True, -78.6),  # RHO has no online model to train.
        ("uniform", 0.0, True, 0.0),
    ],
)
def test_table_1(policy, speedup, with_online_training, expected):
    saved = ledger.compute_speedup(
        policies.get(policy), B, TI, 2.0, speedup, include_online_training=with_online_training
    )
    assert round(100 * saved, 1) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    # f_learn = 10, f_ref = 1, rho = 2, half of the updates saved: by hand from Appendix A.1.
    [
        ("uniform", 30 * 0.5),
        ("hard_learner", (30 + 2 * 10) * 0.5),
        ("easy_reference", (30 + 2 * 1) * 0.5 + 3),
        ("rho", (30 + 2 * 11) * 0.5 + 3),
        ("learnability", (30 + 2 * 11) * 0.5 + 3),
        ("classact", (30 + 4 * 1) * 0.5 + 3),
        ("classact_online", (30 + 4 * 1) * 0.5 + 3),
    ],
)
def test_formulas_of_appendix_a1(policy, expected):
    cost = ledger.cost_per_update(policies.get(policy), f_learn=10.0, f_ref=1.0, rho=2.0, learner_speedup=0.5)
    assert cost == pytest.approx(expected)


def test_full_formula_counts_the_super_batch_of_a_trained_reference():
    policy = policies.get("classact_online")
    arguments = dict(f_learn=10.0, f_ref=1.0, rho=2.0, learner_speedup=0.5, include_online_training=True)
    cost = ledger.cost_per_update(policy, reference_batch_ratio=10.0, **arguments)
    assert cost == pytest.approx((30 + 4 + 3 + 30) * 0.5)
    fixed = ledger.cost_per_update(policies.get("classact"), reference_batch_ratio=10.0, **arguments)
    assert fixed == pytest.approx((30 + 4 + 3) * 0.5 + 3)


def test_an_amortised_reference_leaves_the_last_term_out():
    policy = policies.get("classact")
    with_reference = ledger.cost_per_update(policy, f_learn=10.0, f_ref=1.0)
    assert with_reference - ledger.cost_per_update(
        policy, f_learn=10.0, f_ref=1.0, include_reference_training=False
    ) == pytest.approx(3.0)


def test_a_users_policy_is_counted_by_its_models():
    policy = policies.Policy("mine", online="proxy")
    cost = ledger.cost_per_update(policy, f_learn=10.0, f_ref=1.0, rho=4.0, include_online_training=True)
    assert cost == pytest.approx(30 + 4 + 3)


@given(all_policies, macs, macs, ratios, speedups)
def test_cost_falls_with_speedup_and_rises_with_every_term(policy, f_learn, f_ref, rho, speedup):
    def cost(**changes):
        arguments = dict(f_learn=f_learn, f_ref=f_ref, rho=rho, learner_speedup=speedup) | changes
        return ledger.cost_per_update(policy, **arguments)

    assert cost(learner_speedup=speedup - 0.5) > cost()
    assert cost(rho=rho + 1) > cost() or not policy.scores
    assert cost(include_online_training=True) > cost() or policy.online != "proxy"
    assert ledger.compute_speedup(policy, f_learn, f_ref, rho, speedup) <= speedup + 1e-9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("f_learn", 0.0),
        ("f_ref", -1.0),
        ("rho", 0.5),
        ("learner_speedup", 1.0),
        ("reference_batch_ratio", 0.0),
    ],
)
def test_impossible_values_are_named(field, value):
    arguments = dict(f_learn=10.0, f_ref=1.0) | {field: value}
    with pytest.raises(ValueError, match=f"{field}={value}"):
        ledger.cost_per_update(policies.get("classact_online"), **arguments)


COUNTS = dict(learner_macs=100, scorer_macs=10, updates=50, batch_size=4, examples_scored=500)


def test_ledger_of_a_uniform_run_has_only_the_learner():
    result = ledger.run_ledger(policies.get("uniform"), **(COUNTS | {"examples_scored": 0}))
    assert result.pop("learner_forward_macs") == 100
    assert result.pop("macs_per_update") == 1200
    assert result.pop("learner_update_macs") == 300
    spent = {name: value for name, value in result.items() if value}
    assert spent == {
        "learner_training_macs": 60_000,
        "total_macs": 60_000,
        "total_macs_paper_formula": 60_000,
        "computed_macs": 60_000,
    }


def test_ledger_of_a_classact_run():
    result = ledger.run_ledger(policies.get("classact"), reference_pretraining_macs=7000.0, **COUNTS)
    assert result == {
        "learner_training_macs": 60_000,
        "online_training_macs": 6_000,
        "reference_training_macs": 0,
        "scoring_macs": 10_000,
        "joint_selection_macs": 0,
        "reference_pretraining_macs": 7_000,
        "total_macs": 83_000,
        "total_macs_paper_formula": 77_000,
        "macs_per_update": 76_000 / 50,
        "learner_forward_macs": 100,
        "scorer_forward_macs": 10,
        "reference_forward_macs": 10,
        "learner_update_macs": 300,
        "scorer_update_macs": 30,
        "reference_update_macs": 30,
        "evaluation_macs": 0,
        "padding_macs": 0,
        "redone_macs": 0,
        "computed_macs": 76_000,
    }
    assert all(type(value) is float for value in result.values())


def test_what_is_no_part_of_a_comparison_stands_beside_the_total():
    plain = ledger.run_ledger(policies.get("classact"), reference_pretraining_macs=7000.0, **COUNTS)
    beside = {"slots_padded": 30, "updates_redone": 5, "evaluation_macs": 1000.0}
    result = ledger.run_ledger(
        policies.get("classact"), reference_pretraining_macs=7000.0, **beside, **COUNTS
    )
    assert (result["padding_macs"], result["redone_macs"], result["evaluation_macs"]) == (600, 6600, 1000)
    assert result["computed_macs"] == 76_000 + 600 + 6600 + 1000
    same = ("total_macs", "total_macs_paper_formula", "macs_per_update", "scoring_macs")
    assert [result[name] for name in same] == [plain[name] for name in same]


def test_a_joint_choice_costs_in_each_update():
    plain, result = (
        ledger.run_ledger(policies.get("jest_proxy"), updates_redone=5, joint_macs=macs, **COUNTS)
        for macs in (0.0, 40.0)
    )
    assert result["joint_selection_macs"] == 50 * 40
    more = {name: value - plain[name] for name, value in result.items() if value != plain[name]}
    assert more == {
        "joint_selection_macs": 2000,
        "total_macs": 2000,
        "total_macs_paper_formula": 2000,
        "macs_per_update": 40,
        "redone_macs": 5 * 40,
        "computed_macs": 2000 + 5 * 40,
    }


def test_rematerialisation_costs_in_each_update_and_not_in_the_papers_formula():
    again = {"learner_recomputed_macs": 70, "scorer_recomputed_macs": 7}
    result = ledger.run_ledger(policies.get("classact_online"), super_batch_size=40, **again, **COUNTS)
    plain = ledger.run_ledger(policies.get("classact_online"), super_batch_size=40, **COUNTS)
    assert result["total_macs"] - plain["total_macs"] == 50 * (4 * 70 + 4 * 7 + 40 * 7)
    assert result["total_macs_paper_formula"] == plain["total_macs_paper_formula"]
    assert (result["learner_update_macs"], result["scorer_update_macs"]) == (370, 37)


def test_ledger_of_a_classact_online_run_counts_the_super_batches():
    result = ledger.run_ledger(policies.get("classact_online"), super_batch_size=40, **COUNTS)
    assert result["reference_training_macs"] == 3 * 10 * 50 * 40
    assert result["total_macs"] == 60_000 + 6_000 + 60_000 + 10_000
    assert result["total_macs_paper_formula"] == 60_000 + 6_000 + 10_000


@pytest.mark.parametrize(
    ("policy", "per_example"), [("hard_learner", 100), ("easy_reference", 10), ("rho", 110)]
)
def test_scoring_is_counted_by_the_models_that_score(policy, per_example):
    result = ledger.run_ledger(policies.get(policy), **COUNTS)
    assert result["scoring_macs"] == 500 * per_example


@given(
    all_policies,
    macs,
    macs,
    st.integers(1, 10_000),
    st.integers(1, 512),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_ledger_and_formula_agree(policy, learner_macs, scorer_macs, updates, batch_size, rho, ratio):
    """A run whose reference was trained on as many examples as itself costs what the formula says."""
    examples = updates * batch_size
    result = ledger.run_ledger(
        policy,
        learner_macs=learner_macs,
        scorer_macs=scorer_macs,
        updates=updates,
        batch_size=batch_size,
        examples_scored=rho * examples,
        super_batch_size=ratio * batch_size,
        reference_pretraining_macs=3 * scorer_macs * examples if policy.reference == "fixed" else 0.0,
    )
    arguments = dict(f_learn=learner_macs, f_ref=scorer_macs, rho=rho)
    paper = ledger.cost_per_update(policy, **arguments)
    full = ledger.cost_per_update(
        policy, include_online_training=True, reference_batch_ratio=ratio, **arguments
    )
    assert result["total_macs_paper_formula"] == pytest.approx(paper * examples)
    assert result["total_macs"] == pytest.approx(full * examples)


def test_a_reference_whose_losses_were_read_is_no_part_of_the_scoring():
    counts = {"learner_macs": 10.0, "scorer_macs": 2.0, "updates": 3, "batch_size": 4, "examples_scored": 24}
    by_model, by_file = (
        ledger.run_ledger(
            policies.get("classact"),
            **counts,
            reference_pretraining_macs=100.0,
            reference_from_file=from_file,
        )
        for from_file in (False, True)
    )
    assert by_model["scoring_macs"] - by_file["scoring_macs"] == 24 * 2.0
    assert by_model["total_macs"] - by_file["total_macs"] == 24 * 2.0
    # Of easy reference nothing is left to compute.
    alone = ledger.run_ledger(policies.get("easy_reference"), **counts, reference_from_file=True)
    assert (alone["scoring_macs"], alone["scorer_forward_macs"]) == (0.0, 0.0)


@pytest.mark.parametrize("policy", ["top_share", "curriculum"])
def test_what_was_made_before_a_run_counts(policy):
    counts = {"learner_macs": 10.0, "scorer_macs": 0.0, "updates": 3, "batch_size": 4, "examples_scored": 0}
    found = ledger.run_ledger(policies.get(policy), **counts, reference_pretraining_macs=100.0)
    assert found["total_macs"] == 3 * 10.0 * 3 * 4 + 100.0
    assert found["scoring_macs"] == 0.0


def test_a_run_of_no_updates_has_a_ledger():
    result = ledger.run_ledger(policies.get("classact"), **(COUNTS | {"updates": 0, "examples_scored": 0}))
    assert set(result.values()) == {0.0, 10.0, 30.0, 100.0, 300.0}


@pytest.mark.parametrize(
    ("policy", "changes", "message"),
    [
        ("classact", {"updates": -1}, "updates=-1"),
        ("classact", {"learner_macs": 0}, "learner_macs=0"),
        ("uniform", {"reference_pretraining_macs": 5.0}, "reference_pretraining_macs=5.0.*'uniform'"),
        ("classact_online", {}, "super_batch_size=0"),
    ],
)
def test_impossible_counts_are_named(policy, changes, message):
    with pytest.raises(ValueError, match=message):
        ledger.run_ledger(policies.get(policy), **(COUNTS | changes))


def test_the_page_names_every_key():
    page = (pathlib.Path(ledger.__file__).parents[1] / "docs" / "ledger.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", page))
    assert set(ledger.run_ledger(policies.get("classact"), **COUNTS)) <= named
