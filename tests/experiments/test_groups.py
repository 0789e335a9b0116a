from classact.experiments import curves, groups


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


def test_the_same_seed_with_two_references_is_two_experiments(make_run):
    runs = [
        make_run(name, policy="classact", config={"reference": {"checkpoint": name}})
        for name in ("clean", "noisy")
    ]
    assert [group.label for group in group_of(*runs)] == [
        "classact, reference.checkpoint clean",
        "classact, reference.checkpoint noisy",
    ]


def test_the_same_seed_twice_is_one_group(make_run):
    assert [len(group.rows) for group in group_of(make_run("a"), make_run("b"))] == [2]


def test_labels_name_three_differences_at_most_and_are_unique(make_run):
    many = {"patch_size": 1, "learning_rate": 0.5, "batch_size": 1, "filter_ratio": 0.1}
    found = group_of(make_run("a"), make_run("b", config=many), make_run("c", config=many | {"steps": 7}))
    labels = [group.label for group in found]
    assert len(set(labels)) == 3
    assert all(label.count(",") <= 3 for label in labels)


def test_shared_fields(make_run):
    found = group_of(make_run("a"), make_run("b", policy="classact", seed=1, config={"extra": 1}))
    shared = groups.shared_fields(found)
    assert shared["learner.model"] == "vit_mu_6_1"
    assert shared["label_noise"] == 0.2
    assert not {"policy", "seed", "extra"} & set(shared)
