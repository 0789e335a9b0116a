import pytest

from classact.experiments import base, curves
from classact.experiments.compare import comparison, groups


def group_of(*paths):
    return groups.group_runs([curves.load_run(path) for path in paths])


def test_seeds_are_one_group_whatever_machine_and_reference_they_had(make_run):
    found = group_of(
        make_run("b", seed=1, config={"reference": {"checkpoint": "r1"}, "versions": {"jax": "1"}}),
        make_run("a", seed=0, config={"reference": {"checkpoint": "r0"}, "git_commit": "x"}),
        make_run("c", seed=0, policy="classact"),
    )
    assert [group.label for group in found] == ["uniform", "classact"]
    assert [row.run.path.name for row in found[0].rows] == ["a", "b"]


def test_experiments_of_one_policy_are_told_apart_by_what_differs(make_run):
    found = group_of(
        make_run("a", config={"replay": {"capacity": 512}, "temperature": 0.5}),
        make_run("b", config={"replay": {"capacity": 2048}, "temperature": 0.5}),
        make_run("c", policy="classact", config={"temperature": 2.0}),
    )
    assert [group.label for group in found] == [
        "uniform, replay.capacity 512",
        "uniform, replay.capacity 2048",
        "classact",
    ]


def test_a_field_that_is_not_set_is_named_as_that(make_run):
    found = group_of(make_run("a", config={"eval_data": ""}), make_run("b", config={"eval_data": "digits"}))
    assert [group.label for group in found] == ["uniform, no eval_data", "uniform, eval_data digits"]


def test_what_only_scoring_runs_use_does_not_tell_others_apart(make_run):
    changes = {"temperature": 0.03, "scorer": {"model": "vit_mu_1_1"}}
    runs = [
        make_run(f"{policy}_{len(config)}", policy=policy, seed=len(config), config=config)
        for policy in ("uniform", "classact")
        for config in ({}, changes)
    ]
    assert [group.label for group in group_of(*runs)] == [
        "uniform",
        "classact, scorer.model vit_mu_2_1, temperature 1.0",
        "classact, scorer.model vit_mu_1_1, temperature 0.03",
    ]


def test_the_same_seed_with_two_references_is_two_experiments(make_run):
    runs = [
        make_run(name, policy="classact", config={"reference": {"checkpoint": name}})
        for name in ("clean", "noisy")
    ]
    assert [group.label for group in group_of(*runs)] == [
        "classact, reference clean",
        "classact, reference noisy",
    ]


def test_references_of_other_experiments_are_told_apart_whatever_the_seeds(make_run):
    trained = {
        (data, seed): make_run(f"{data}_{seed}", seed=seed, config={"train_data": data})
        for data in ("clean", "noisy")
        for seed in (0, 1, 2)
    }

    def classact(data, seed, reference_seed):
        reference = {"checkpoint": str(trained[data, reference_seed])}
        return make_run(f"a_{data}_{seed}", policy="classact", seed=seed, config={"reference": reference})

    found = group_of(
        classact("clean", 0, 0), classact("clean", 1, 1), classact("noisy", 2, 0), classact("noisy", 3, 1)
    )
    assert [len(group.rows) for group in found] == [2, 2]
    assert [group.label for group in found] == ["classact, reference clean_0", "classact, reference noisy_0"]


def test_the_same_seed_twice_is_one_group(make_run):
    assert [len(group.rows) for group in group_of(make_run("a"), make_run("b"))] == [2]


def test_labels_name_three_differences_at_most_and_are_unique(make_run):
    many = {"patch_size": 1, "learning_rate": 0.5, "batch_size": 1, "filter_ratio": 0.1}
    found = group_of(make_run("a"), make_run("b", config=many), make_run("c", config=many | {"steps": 7}))
    labels = [group.label for group in found]
    assert len(set(labels)) == 3
    assert all(label.count(",") <= 3 for label in labels)


def test_no_run_is_lost_where_names_are_the_same(make_run):
    names = [f"{parent}/run" for parent in "abc"]
    references = {name: {"reference": {"checkpoint": f"{name}/reference"}} for name in names}
    found = group_of(*(make_run(name, policy="classact", config=references[name]) for name in names))
    assert len(found) == 3
    assert found[0].label == "classact, reference reference"
    assert found[2].label.endswith("/c/run)")


@pytest.fixture
def write(make_run, make_config):
    """Writes a run of the resolved configuration with changes."""

    def write(name, base_config=None, **changes):
        config = make_config(base_config, **changes)
        first = next(iter(config["data_sets"].values()))
        return make_run(name, policy=first["policy"], config=config)

    return write


def test_one_data_set_is_no_second_copy_of_the_fields(write):
    by_seed = [
        write(f"c{seed}", policy="classact", seed=seed, reference={"checkpoint": f"r{seed}"})
        for seed in (0, 1)
    ]
    other = write("d", policy="classact", temperature=0.5, reference={"checkpoint": "r0"})
    icons, digits = write("u", policy="uniform"), write("v", policy="uniform", train_data="digits")
    found = group_of(*by_seed, other, icons, digits)
    assert [(group.label, len(group.rows)) for group in found] == [
        ("classact, temperature 1.0", 2),
        ("classact, temperature 0.5", 1),
        ("uniform, train_data icons", 1),
        ("uniform, train_data digits", 1),
    ]
    shared = groups.shared_fields(found[:1])
    assert shared["train_data"] == "icons"
    assert not any(name.startswith("data_sets") for name in shared)


def test_one_named_data_set_counts_with_its_own_fields(write):
    def named(checkpoint):
        config = base.get_config()
        changes = {"policy": "classact", "reference": {"checkpoint": checkpoint}, "temperature": 0.5}
        config.data_sets.noisy = base.data_set(config, **changes)
        return config

    found = group_of(write("a", named("runs/r")), write("b", named("runs/s")))
    assert [group.label for group in found] == ["classact, reference r", "classact, reference s"]
    fields = groups.config_fields(found[0].rows[0].run)
    assert (fields["reference.checkpoint"], fields["temperature"]) == ("runs/r", 0.5)


def several(checkpoint="runs/reference", **changes):
    """One data set with ClassAct, which gets the changes, and one without."""
    config = base.get_config()
    reference = {"checkpoint": checkpoint}
    config.data_sets.noisy = base.data_set(config, policy="classact", reference=reference, **changes)
    config.data_sets.clean = base.data_set(config, policy="uniform", train_data="digits")
    return config


def test_seeds_of_several_data_sets_are_one_group(write):
    found = group_of(write("a", several("r0")), write("b", several("r1"), seed=1))
    assert [(group.label, len(group.rows)) for group in found] == [("uniform+classact", 2)]


def test_several_data_sets_are_told_apart_by_what_differs_in_one(write):
    found = group_of(
        write("a", several()), write("b", several(temperature=0.5)), write("c", several("runs/better"))
    )
    assert [group.label for group in found] == [
        "uniform+classact, clean.temperature 1.0, noisy.temperature 0.5",
        "uniform+classact, temperature 1.0, noisy.reference reference",
        "uniform+classact, temperature 1.0, noisy.reference better",
    ]
    shared = groups.shared_fields(found)
    assert shared["data_sets.clean.train_data"] == "digits"
    assert shared["label_noise"] == 0.0
    assert "temperature" not in shared


def test_the_runs_own_fields_say_nothing_of_several_data_sets(write):
    found = group_of(write("a", several()), write("b", several(), seed=1, temperature=7.0))
    assert [len(group.rows) for group in found] == [2]


def test_one_data_set_against_two_of_the_same_policy(write):
    both = base.get_config()
    for name, source in (("a", "icons"), ("b", "digits")):
        both.data_sets[name] = base.data_set(both, policy="uniform", train_data=source)
    assert [group.label for group in group_of(write("one", policy="uniform"), write("two", both))] == [
        "uniform, train_data icons, batch_size 64",
        "uniform, train_data icons+digits, batch_size 128",
    ]


def test_shared_fields(make_run):
    found = group_of(make_run("a"), make_run("b", policy="classact", seed=1, config={"extra": 1}))
    shared = groups.shared_fields(found)
    assert shared["learner.model"] == "vit_mu_6_1"
    assert shared["label_noise"] == 0.2
    assert not {"policy", "seed", "extra"} & set(shared)


def test_seeds_of_which_one_has_diverged_show_no_paired_gain(make_run):
    runs = [make_run(f"u{seed}", seed=seed, noise=0.01) for seed in range(3)]
    runs += [make_run(f"c{seed}", policy="classact", seed=seed, noise=0.01, speed=2.0) for seed in range(3)]
    assert comparison.compare(runs).groups[1].paired("final_gain").n == 3
    runs[-1] = make_run("gone", policy="classact", seed=2, status="failed", result={"diverged": 900})
    assert comparison.compare(runs).groups[1].paired("final_gain") is None
