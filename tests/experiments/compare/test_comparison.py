import json

import pytest

from classact.experiments import base, curves, ledger
from classact.experiments.compare import comparison
from classact.selection import policies

ZERO_SHOT = "eval/icons_50/zero_shot_top1"
RETRIEVAL = ("eval/retrieval/i2t_r1", "eval/retrieval/t2i_r1")


def rows(compared):
    return {(group.label, row.run.field("seed")): row for group in compared.groups for row in group.rows}


def test_a_run_is_held_against_the_uniform_run(make_run):
    # Straight lines to 0.8: 1,500 updates, and 1,000 at 1.5 times the speed.
    compared = comparison.compare(
        [make_run("c", policy="classact", speed=1.5, final=0.8), make_run("u", final=0.8)]
    )
    assert [group.label for group in compared.groups] == ["uniform", "classact"]
    assert [group.is_baseline for group in compared.groups] == [True, False]
    assert compared.notes == ()
    table = rows(compared)
    target = 0.8 * (1400 + 1450 + 1500) / 3 / 1500
    base, row = table["uniform", 0], table["classact", 0]
    assert base.target == base.final == row.target == pytest.approx(target)
    assert base.updates == pytest.approx(1500)
    assert base.fewer_updates == pytest.approx(0.0)
    # The mean of three lags one evaluation behind the line, for both.
    assert row.updates == pytest.approx(1450 / 1.5 + 50)
    assert row.fewer_updates == pytest.approx(1 - row.updates / 1500)


def test_compute_is_compared_by_the_ledgers_and_by_the_papers_formula(make_run):
    table = rows(comparison.compare([make_run("u"), make_run("c", policy="classact", speed=1.5)]))
    base, row = table["uniform", 0], table["classact", 0]
    per_update = row.run.ledger["macs_per_update"]
    assert per_update == pytest.approx(64 * 3 * (1.31e6 + 1.6e5) + 128 * 2 * 1.6e5)
    assert row.macs == pytest.approx(2e10 + row.updates * per_update)
    assert base.macs == pytest.approx(1500 * 64 * 3 * 1.31e6)
    assert row.saving_full == pytest.approx(1 - row.macs / base.macs)
    paper = ledger.compute_speedup(policies.get("classact"), 1.31e6, 1.6e5, 2.0, row.fewer_updates)
    assert row.saving_paper == pytest.approx(paper)


def test_other_figures_of_a_run(make_run):
    table = rows(comparison.compare([make_run("c", policy="classact", corrupted=(0.1, 0.1))]))
    row = table["classact", 0]
    assert (row.wall_seconds, row.cpu_seconds) == (61.4, 118.0)
    assert (row.staleness, row.corrupted) == (2.5, pytest.approx(0.1))
    assert row.target is row.updates is row.saving_full is None


def test_each_seed_is_held_against_its_own_baseline_and_others_against_the_mean(make_run):
    runs = [make_run(f"u{seed}", seed=seed, final=0.6 + 0.1 * seed) for seed in (0, 1)]
    runs += [make_run(f"c{seed}", seed=seed, policy="classact", final=0.9) for seed in (0, 1, 2)]
    table = rows(comparison.compare(runs))
    own = [table["uniform", seed].final for seed in (0, 1)]
    assert table["classact", 0].target == own[0]
    assert table["classact", 1].target == own[1]
    assert table["classact", 2].target == pytest.approx(sum(own) / 2)


def test_means_leave_no_seed_out(make_run):
    runs = [make_run(f"u{seed}", seed=seed) for seed in (0, 1)]
    runs += [
        make_run("c0", seed=0, policy="classact", speed=1.5),
        make_run("c1", seed=1, policy="classact", final=0.5),
    ]
    group = comparison.compare(runs).groups[1]
    assert group.rows[0].updates is not None
    assert group.rows[1].updates is None
    assert group.mean("updates") is None
    assert group.mean("fewer_updates") is None
    assert group.mean("final") == pytest.approx((group.rows[0].final + group.rows[1].final) / 2)


def test_unfinished_runs_are_noted_and_in_no_mean(make_run):
    runs = [make_run(f"u{seed}", seed=seed) for seed in (0, 1)]
    runs += [
        make_run("c0", seed=0, policy="classact", speed=1.5),
        make_run("c1", seed=1, policy="classact", status="interrupted", done=300),
        make_run("c2", seed=2, policy="classact", status=None, done=0),
    ]
    compared = comparison.compare(runs)
    group = compared.groups[1]
    assert [row.run.path.name for row in group.counted] == ["c0"]
    assert group.mean("updates") == group.rows[0].updates
    assert [note.split("/")[-1] for note in compared.notes] == [
        "c1 is interrupted, at update 300 of 1,500.",
        "c2 is unfinished, at update 0 of 1,500.",
        "top1.",
    ]


def test_an_interrupted_run_that_got_there_counts_for_what_it_did(make_run):
    run = make_run("c", policy="classact", speed=2.0, status="interrupted", done=1000)
    row = rows(comparison.compare([make_run("u"), run]))["classact", 0]
    assert row.updates == pytest.approx(1450 / 2 + 50)


def test_a_running_baseline_without_a_result_gives_updates_but_no_compute(make_run):
    table = rows(
        comparison.compare([make_run("u", status=None), make_run("c", policy="classact", speed=1.5)])
    )
    assert table["classact", 0].fewer_updates is not None
    assert table["classact", 0].saving_full is None
    assert table["uniform", 0].macs is None


DIVERGED = {"result": {"diverged": 300}}


def test_a_run_that_has_diverged_is_held_against_nothing_and_nothing_against_it(make_run):
    runs = [make_run(f"u{seed}", seed=seed, **(DIVERGED if seed == 1 else {})) for seed in (0, 1)]
    runs += [
        make_run(f"c{seed}", policy="classact", seed=seed, speed=1.5, **(DIVERGED if seed == 2 else {}))
        for seed in (0, 1, 2)
    ]
    compared = comparison.compare(runs)
    table = rows(compared)
    assert table["uniform", 1].target is table["uniform", 1].final is None
    # Its seed's baseline is the mean of the others.
    assert table["classact", 1].target == table["uniform", 0].final
    assert table["classact", 2].final is table["classact", 2].saving_full is None
    baseline, group = compared.groups
    # As a baseline the others count, and of a policy no mean hides that a seed was lost.
    assert baseline.mean("final") == table["uniform", 0].final
    assert [row.run.path.name for row in group.counted] == ["c0", "c1"]
    assert group.mean("final") is group.mean("fewer_updates") is None
    said = "has diverged, at update 300 of 1,500: it has no result, and nothing is held against it."
    assert compared.headline == (f"{runs[1]} {said}", f"{runs[4]} {said}")
    assert compared.notes == ()


@pytest.mark.parametrize("chosen", [False, True])
def test_without_another_baseline_than_one_that_has_diverged_there_is_none(make_run, chosen):
    runs = [make_run("u", **DIVERGED), make_run("c", policy="classact")]
    compared = comparison.compare(runs, baseline=runs[0] if chosen else None)
    assert not any(group.is_baseline for group in compared.groups)
    assert rows(compared)["classact", 0].target is None
    assert compared.headline[1:] == ("classact has no baseline to compare it with: uniform diverged.",)
    assert compared.notes == ()


def test_a_baseline_of_another_learning_rate_is_taken_where_the_own_one_has_diverged(make_run):
    runs = [make_run("u", **DIVERGED), make_run("low", config={"learning_rate": 1e-4})]
    compared = comparison.compare([*runs, make_run("c", policy="classact")])
    assert [group.label for group in compared.groups if group.is_baseline] == [
        "uniform, learning_rate 0.0001"
    ]
    assert compared.headline[1:] == (
        "classact: learning_rate 0.001 (baseline 0.0001): a gain may be that of the learning rate.",
    )


def test_a_policy_of_which_all_runs_have_diverged_lacks_no_baseline(make_run):
    compared = comparison.compare([make_run("c", policy="classact", **DIVERGED)])
    assert len(compared.headline) == 1
    assert compared.notes == ()


def test_a_baseline_that_was_cut_short_is_in_the_headline_once(make_run):
    runs = [make_run("u", status="interrupted", done=900), make_run("c", policy="classact")]
    compared = comparison.compare(runs)
    assert compared.headline == (
        f"The baseline {runs[0]} is interrupted, at update 900 of 1,500: its final value is not that of its "
        "whole schedule.",
    )
    assert compared.notes == ()
    # Of several seeds those that are complete count.
    assert comparison.compare([*runs, make_run("u1", seed=1)]).headline == ()


def test_several_policies_that_differ_in_the_same_have_one_line(make_run):
    runs = [make_run("u", config={"learning_rate": 1e-4})]
    runs += [make_run(policy, policy=policy) for policy in ("classact", "rho")]
    assert comparison.compare(runs).headline == (
        "classact; rho: learning_rate 0.001 (baseline 0.0001): a gain may be that of the learning rate.",
    )


def test_the_baseline_has_the_same_learner(make_run):
    other = {"learner": {"model": "vit_mu_2_1"}}
    runs = [make_run("reference", config=other, final=0.5), make_run("c", policy="classact")]
    compared = comparison.compare(runs)
    assert rows(compared)["classact", 0].target is None
    assert not any(group.is_baseline for group in compared.groups)
    assert compared.notes == (
        "classact: no evaluated uniform run with learner vit_mu_6_1 to compare it with.",
    )
    compared = comparison.compare([*runs, make_run("u")])
    assert [(group.label, group.is_baseline) for group in compared.groups] == [
        ("uniform, learner.model vit_mu_6_1", True),
        ("uniform, learner.model vit_mu_2_1", False),
        ("classact", False),
    ]
    assert (
        rows(compared)["classact", 0].target == rows(compared)["uniform, learner.model vit_mu_6_1", 0].final
    )


def test_of_several_baselines_the_most_alike_is_taken(make_run):
    runs = [
        make_run("u_long", steps=3000, final=0.7),
        make_run("u", final=0.8),
        make_run("c", policy="classact", final=0.9),
    ]
    compared = comparison.compare(runs)
    assert compared.groups[0].label == "uniform, steps 1500"
    assert rows(compared)["classact", 0].target == rows(compared)["uniform, steps 1500", 0].final


@pytest.mark.parametrize("as_list", [False, True])
def test_a_baseline_can_be_chosen(make_run, as_list):
    chosen = make_run("rho", policy="rho", final=0.7)
    runs = [make_run("u"), make_run("c", policy="classact")]
    compared = comparison.compare(runs, baseline=[chosen] if as_list else str(chosen))
    assert [(group.label, group.is_baseline) for group in compared.groups] == [
        ("rho", True),
        ("uniform", False),
        ("classact", False),
    ]
    table = rows(compared)
    assert table["classact", 0].target == table["uniform", 0].target == table["rho", 0].final


def test_what_cannot_be_compared_is_noted(make_run):
    runs = [make_run("u"), make_run("c", policy="classact", steps=3000, config={"eval_data": "digits"})]
    assert comparison.compare(runs).headline == (
        "classact: eval_data digits (baseline fashion_mnist:test): their accuracies are on different data.",
        "classact: steps 3000 (baseline 1500): their learning-rate schedules have different lengths.",
    )


def test_a_setting_that_an_older_run_does_not_know_is_no_difference(make_run, make_config):
    older = make_run("u", config={"eval_data": "", "train_data": "icons", "patch_size": 8})
    config = make_config(policy="classact", reference={"checkpoint": "r"}, label_noise=0.2)
    compared = comparison.compare([older, make_run("c", policy="classact", config=config)])
    assert rows(compared)["classact", 0].target is not None
    assert compared.notes == compared.headline == compared.groups[1].differences == ()


def test_other_captions_and_evaluators_are_noted(make_pairs_run):
    evaluation = {
        "evaluators": {
            "retrieval": {"kind": "retrieval", "data": "icon_pairs"},
            "icons_50": {"kind": "zero_shot", "data": "icons?classes=50", "templates": "clip"},
        }
    }
    changes = {"caption_noise": 0.1, "evaluation": evaluation}
    runs = [make_pairs_run("u", "uniform"), make_pairs_run("a", "active_clean", config=changes)]
    captions = "classact: caption_noise 0.1 (baseline 0.3): they learn from different captions."
    i2t, _, zero_shot = (comparison.compare(runs, metric=name) for name in (*RETRIEVAL, ZERO_SHOT))
    assert i2t.headline == (
        "classact: eval_data icon_pairs (baseline icon_pairs?subset=clean): "
        "their recalls are on different data.",
        captions,
        "classact: evaluation.evaluators.retrieval.distinct False (baseline True): "
        "their recalls are among different pairs.",
    )
    assert zero_shot.headline == (
        captions,
        "classact: evaluation.evaluators.icons_50.templates clip (baseline icons): "
        "their classes are named in different prompts.",
    )


def test_noise_of_several_data_sets_is_compared_set_by_set(make_run, make_config):
    def config(policy, noise):
        made = base.get_config()
        for name, share in (("a", 0.0), ("b", noise)):
            changes = {
                "policy": policy,
                "label_noise": share,
                "reference": {"checkpoint": "r" * (policy != "uniform")},
            }
            made.data_sets[name] = base.data_set(made, **changes)
        return make_config(made)

    runs = [make_run("u", config=config("uniform", 0.1))]
    runs += [make_run("c", policy="classact", config=config("classact", 0.2))]
    assert comparison.compare(runs).headline == (
        "classact: label_noise 0.0 + 0.2 (baseline 0.0 + 0.1): they learn from different labels.",
    )


def test_references_make_experiments_with_telling_names(make_pairs_run):
    parts = ("active_noisy", "active_clean", "uniform")
    compared = comparison.compare([make_pairs_run(part, part) for part in parts], metric=ZERO_SHOT)
    assert [group.label for group in compared.groups] == [
        "uniform",
        "classact, reference noisy",
        "classact, reference clean",
    ]


def test_without_a_choice_each_evaluators_main_metrics_are_compared(make_run, make_pairs_run):
    runs = [make_pairs_run("u", "uniform"), make_pairs_run("a", "active_clean", speed=1.5)]
    compared = comparison.compare_metrics(runs)
    assert sorted(one.metric for one in compared) == [ZERO_SHOT, *RETRIEVAL]
    targets = {one.metric: rows(one)["classact", 0].target for one in compared}
    assert targets[RETRIEVAL[0]] == pytest.approx(targets[ZERO_SHOT] / 3)
    assert {(one.measure, one.targets) for one in compared} == {
        ("accuracy", "captions"),
        ("recall", "captions"),
    }
    (classified,) = comparison.compare_metrics([make_run("c")])
    assert (classified.metric, classified.measure, classified.targets) == (
        "eval/test/top1",
        "accuracy",
        "labels",
    )


def test_only_what_all_runs_have_is_compared_without_a_choice(make_run, make_pairs_run):
    evaluators = {"retrieval": {"kind": "retrieval", "data": "icon_pairs"}}
    fewer = make_pairs_run("a", "active_clean", config={"evaluation": {"evaluators": evaluators}})
    both = [make_pairs_run("u", "uniform"), fewer]
    assert sorted(one.metric for one in comparison.compare_metrics(both)) == list(RETRIEVAL)
    with pytest.raises(curves.RunError, match="choose a metric of eval/test/top1, eval/retrieval/i2t_r1, "):
        comparison.compare_metrics([make_run("c"), fewer])


def test_metrics_of_choice(make_pairs_run):
    runs = [make_pairs_run("u", "uniform")]
    chosen = comparison.compare_metrics(runs, metrics=[RETRIEVAL[1], ZERO_SHOT, RETRIEVAL[1]])
    assert [one.metric for one in chosen] == [RETRIEVAL[1], ZERO_SHOT]


@pytest.mark.parametrize(
    "metric", ["top1", "eval/test/top1", "eval/retrieval/i2t_r5", "eval/retrieval/pairs"]
)
def test_a_metric_that_no_run_has(make_pairs_run, metric):
    with pytest.raises(curves.RunError, match=f"metric='{metric}': no run has it, .* eval/retrieval/i2t_r1"):
        comparison.compare_metrics([make_pairs_run("u", "uniform")], metrics=[metric])


def test_runs_that_have_just_begun_can_be_asked_for_what_they_will_measure(make_pairs_run):
    run = make_pairs_run("u", "uniform", status=None, done=0)
    (compared,) = comparison.compare_metrics([run], metrics=[ZERO_SHOT])
    assert f"{run} has no evaluations of {ZERO_SHOT}." in compared.notes


@pytest.mark.parametrize(
    ("name", "measure"),
    [("top5", "accuracy"), ("zero_shot_top1", "accuracy"), ("t2i_r10", "recall"), ("stop1x", "value")],
)
def test_what_a_metric_measures(make_run, name, measure):
    assert comparison.compare([make_run("u")], metric=f"eval/test/{name}").measure == measure


def test_a_policy_that_is_not_registered_here_has_no_formula(make_run):
    run = make_run("mine", policy="classact", speed=1.5)
    config = json.loads((run / "config.json").read_text()) | {"policy": "mine"}
    (run / "config.json").write_text(json.dumps(config))
    row = rows(comparison.compare([make_run("u"), run]))["mine", 0]
    assert row.saving_paper is None
    assert row.saving_full is not None


def test_a_directory_given_twice_counts_once(make_run):
    run = make_run("u")
    compared = comparison.compare([run, run / ".." / "u", str(run)], baseline=[run])
    assert [len(group.rows) for group in compared.groups] == [1]


def test_nothing_to_compare_and_no_run(tmp_path):
    with pytest.raises(ValueError, match="nothing to compare"):
        comparison.compare([])
    with pytest.raises(ValueError, match="nothing to compare"):
        comparison.compare_metrics([])
    with pytest.raises(curves.RunError, match=r"has no config\.json"):
        comparison.compare([tmp_path])


def test_macs_at_needs_a_ledger(make_run):
    run = curves.load_run(make_run("c", policy="classact"))
    assert comparison.macs_at(run, 0) == 2e10
    assert comparison.macs_at(run, 10) == pytest.approx(2e10 + 10 * run.ledger["macs_per_update"])
    assert comparison.macs_at(curves.load_run(make_run("r", status=None)), 10) is None
