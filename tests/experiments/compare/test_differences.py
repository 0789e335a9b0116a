import pytest

from classact.experiments import base, curves
from classact.experiments.compare import differences, groups
from classact.experiments.compare.differences import Difference

FIELDS = groups.flatten(base.get_config().to_dict())
# What a policy implies, and what changes no result: a field that is in neither list is compared.
UNLISTED = (
    "policy", "filter_ratio", "temperature", "score_shift", "max_nonfinite_share", "scorer.", "reference.",
    "replay.", "inference.", "seed", "log_every", "checkpoint_every", "record_examples", "no_data_seconds",
    "restarts_per_hour", "hung_seconds", "stop_notice_seconds", "threads.", "cluster.", "resources.",
    "evaluation.batch_size",
    # Of a single data set; and of a task that the runs do not have.
    "weight", "contrastive.",
)  # fmt: skip
# Checked by tests of their own: groups by name, what stands for others, and what counts only at times.
APART = ("data_sets", "learner.options", "scorer.options", "evaluation.evaluators", "eval_share")


def listed(ours, theirs, evaluator="test", measures="accuracies"):
    """The differences of two configurations, as text."""
    runs = [
        curves.Run(path="r", config={"policy": "uniform", **config}, result={}, curve=(), learner=())
        for config in (ours, theirs)
    ]
    return [str(item) for item in differences.differences([tuple(runs)], evaluator, measures)]


def nested(name, value):
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def unlisted(name):
    return name.startswith(tuple(each for each in UNLISTED if each.endswith("."))) or name in UNLISTED


@pytest.mark.parametrize("name", [name for name in FIELDS if not name.startswith(APART)])
def test_every_field_of_the_configuration_is_compared_unless_it_is_named(name):
    found = listed(nested(name, "a"), nested(name, "b"))
    if unlisted(name):
        assert found == []
    else:
        assert any(line.startswith(f"{name} a (baseline b)") for line in found)


def test_a_difference_reads_as_a_line():
    assert str(Difference("steps", "2", "1")) == "steps 2 (baseline 1)"
    assert str(Difference("steps", "2", "1", "so it is")) == "steps 2 (baseline 1): so it is"


def test_those_that_a_gain_may_come_of_are_first():
    (first, second) = listed({"weight_decay": 1, "learning_rate": 1}, {"weight_decay": 2, "learning_rate": 2})
    assert first == "learning_rate 1 (baseline 2): a gain may be that of the learning rate"
    assert second == "weight_decay 1 (baseline 2)"


def test_what_an_older_run_does_not_know_is_no_difference():
    assert listed({"clip_norm": 1.0, "contrastive": {"causal": True}}, {}) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"dtype": "bfloat16"}, {}, ["learner.options.dtype bfloat16 (baseline not set)"]),
        ({}, {"pool": ""}, ["learner.options.pool not set (baseline empty)"]),
        ({"pool": "cls"}, {"pool": "cls"}, []),
    ],
)
def test_an_option_that_is_not_given_has_its_default(ours, theirs, expected):
    found = listed({"learner": {"options": ours}}, {"learner": {"options": theirs}})
    assert found == expected


def test_settings_of_a_task_count_where_a_run_has_it():
    ours, theirs = {"contrastive": {"loss": "infonce"}}, {"contrastive": {"loss": "sigmoid"}}
    assert listed({"task": "classification", **ours}, {"task": "classification", **theirs}) == []
    assert listed({"task": "contrastive", **ours}, {"task": "contrastive", **theirs}) == [
        "contrastive.loss infonce (baseline sigmoid)"
    ]


def test_only_the_metrics_evaluator_counts():
    def config(templates, other):
        own = {"kind": "zero_shot", "data": "icons", "templates": templates}
        return {"evaluation": {"evaluators": {"test": own, "other": {"kind": other}}}}

    assert listed(config("clip", "accuracy"), config("icons", "retrieval")) == [
        "evaluation.evaluators.test.templates clip (baseline icons): "
        "their classes are named in different prompts"
    ]


def test_evaluation_data_are_those_of_the_evaluator_or_follow():
    ours = {"evaluation": {"evaluators": {"test": {"data": "a"}}}, "eval_data": "", "train_data": "c"}
    theirs = {"eval_data": "b", "train_data": "c"}
    assert listed(ours, theirs, measures="recalls") == [
        "eval_data a (baseline b): their recalls are on different data"
    ]
    assert listed({"train_data": "a", "eval_data": ""}, {"train_data": "b", "eval_data": "a"})[1:] == []


def sets(*sizes, **fields):
    """Several data sets, named by their order, of batches of these sizes."""
    return {
        "batch_size": sum(sizes),
        "data_sets": {f"s{i}": {"batch_size": size, **fields} for i, size in enumerate(sizes)},
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (sets(96, 32), sets(64, 64), ["batch_size 96 + 32 (baseline 64 + 64): their updates are of"]),
        (sets(64, 64), sets(128), ["batch_size 64 + 64 (baseline 128): their updates are of"]),
        (sets(64, 64, held_out=0.0), sets(64, 64, held_out=0.5), ["held_out 0.0 (baseline 0.5)"]),
        # Of a single loss the weight is none, of several it is.
        (sets(64, weight=1.0), sets(64, weight=2.0), []),
        (sets(64, 64, weight=1.0), sets(64, 64, weight=2.0), ["weight 1.0 (baseline 2.0)"]),
        (sets(64, temperature=1.0, replay={"capacity": 1}), sets(64, temperature=2.0), []),
    ],
)
def test_several_data_sets_are_compared_set_by_set(ours, theirs, expected):
    found = listed(ours, theirs)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


def found_of(name="folder", eval_data=None, **found):
    started = {"host": name, "directory": name, "isolated": None, "data": {name: found}}
    return {"train_data": f"{name}:x", "started": {**started, "eval_data": {"test": eval_data or {}}}}


def test_what_was_found_of_the_data_is_compared_whatever_they_are_called():
    ours = found_of("folder", num_examples=10, record={"image": 1}, class_names=["b", "a"], digest="")
    theirs = found_of("tar", num_examples=12, record={"image": 2}, class_names=["a", "b"], digest="x")
    assert listed(ours, theirs)[-1:] == ["data.num_examples 10 (baseline 12)"]
    assert len(listed(ours, theirs)) == 3  # And the names, as data to train and to measure on.


def test_the_part_that_was_held_out_counts_if_there_was_one():
    held = {"started": {"data": {"folder": {"held_out_examples": 5}}}}
    assert listed({"eval_share": 0.1, **held}, {"eval_share": 0.2, **held}) == [
        "eval_share 0.1 (baseline 0.2)"
    ]
    assert listed({"eval_share": 0.1}, {"eval_share": 0.2}) == []


def test_other_classes_are_named_once_and_another_order_is_no_difference():
    named = (["ant", "bee"], ["ant", "cow"], ["bee", "ant"])
    ours, theirs, turned = (found_of(num_classes=2, class_names=names) for names in named)
    expected = "classes 2: ant, bee (baseline 2: ant, cow): their accuracies are of different classes"
    assert listed(ours, theirs) == [expected]
    assert listed(ours, turned) == []


def test_the_same_contents_by_another_name_are_no_other_data():
    kept = {"num_examples": 5, "digest": "files:1"}
    ours, theirs = (
        found_of(name, fingerprint=kept, eval_data={"fingerprint": kept}) for name in ("folder", "npz")
    )
    expected = ["train_data folder:x (baseline npz:x)", "eval_data folder:x (baseline npz:x)"]
    assert listed(ours, theirs) == expected
    unknown = {"num_examples": 5, "digest": ""}
    ours, theirs = (found_of(name, fingerprint=unknown) for name in ("folder", "npz"))
    assert all("different data" in line for line in listed(ours, theirs))


@pytest.mark.parametrize(("held_out", "expected"), [(5, ["eval_share 0.1 (baseline 0.2)"]), (0, [])])
def test_the_share_to_measure_on_counts_where_something_was_held_out(held_out, expected):
    ours, theirs = (found_of(held_out_examples=held_out) | {"eval_share": share} for share in (0.1, 0.2))
    assert listed(ours, theirs) == expected


def test_other_contents_to_measure_on_are_said():
    ours, theirs = (found_of(eval_data={"fingerprint": {"digest": digest}}) for digest in "ab")
    assert listed(ours, theirs) == [
        "eval_data.fingerprint.digest a (baseline b): their accuracies are on different data"
    ]


def test_a_group_is_one_list():
    """Of several seeds each is held against its own; what differs in all of them is said once."""
    runs = [
        curves.Run("r", {"policy": policy, "seed": seed, "data_seed": seed, "steps": steps}, {}, (), ())
        for policy, steps in (("classact", 20), ("uniform", 10))
        for seed in (0, 1)
    ]
    (found,) = differences.differences([(runs[0], runs[2]), (runs[1], runs[3])], "test", "accuracies")
    assert (found.field, found.value, found.baseline) == ("steps", "20", "10")
    crossed = differences.differences([(runs[0], runs[2]), (runs[0], runs[3])], "test", "accuracies")
    assert [str(item) for item in crossed][1:] == ["data_seed 0 (baseline 1)"]


def test_long_values_are_cut():
    (line,) = listed({"train_data": "x" * 99, "eval_data": "e"}, {"train_data": "y", "eval_data": "e"})
    assert line.startswith(f"train_data {'x' * 59}… (baseline y)")
    (line,) = listed({"git_commit": "a1" * 20}, {"git_commit": "unknown"})
    assert line == "git_commit a1a1a1a1a1a1 (baseline unknown)"
