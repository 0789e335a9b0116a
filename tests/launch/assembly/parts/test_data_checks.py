"""Sizes and labels that no useful run can come of."""

import numpy as np
import pytest

from classact.data.source import ArraySource
from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.launch.assembly.parts import data_checks
from classact.launch.assembly.parts.first_lines import FirstLines


def source(labels, classes, names=None):
    return ArraySource("mine", np.zeros((len(labels), 1, 1, 1), np.uint8), np.asarray(labels), classes, names)


def said_of_labels(*arguments):
    said = FirstLines()
    data_checks.check_labels(source(*arguments), said)
    return list(said.lines())


def test_labels_that_all_occur_are_not_spoken_of():
    assert said_of_labels([0, 1, 2], 3) == []


def test_missing_classes_are_named():
    (line,) = said_of_labels([0, 2], 4, ["ant", "bee", "cow", "dog"])
    assert line.startswith(
        "warning: mine: 2 of 4 classes have no example to train on, and the model will not"
    )
    assert line.endswith("learn them: 'bee', 'dog'")
    (line,) = said_of_labels([0, 19], 20)
    assert line.endswith("learn them: 1, 2, 3, 4, 5, …")


def test_one_missing_class_is_spoken_of_as_one():
    (line,) = said_of_labels([0, 2, 2], 3)
    assert line.endswith("1 of 3 classes has no example to train on, and the model will not learn it: 1")


def test_labels_that_begin_at_1_are_named_only_if_they_have_names():
    assert "so class 0 never occurs" in said_of_labels([1, 2], 3)[0]
    assert "so class 0, 'ant', never occurs" in said_of_labels([1, 2], 3, ["ant", "bee", "cow"])[0]


@pytest.mark.parametrize(("labels", "classes", "only"), [([0, 0], 1, "0"), ([2, 2], 3, "2")])
def test_one_class_is_refused(labels, classes, only):
    with pytest.raises(ConfigError, match=f"of one class, {only}: there is nothing to learn"):
        said_of_labels(labels, classes)


def data_set(**changes):
    config = base.get_config()
    config.update_from_flattened_dict({"policy": "hard_learner", "train_data": "digits", **changes})
    return resolution.resolve(config.to_dict()).data_sets["digits"]


def check(own, example_bytes=1000, memory=None, nodes=True, call_bytes=None, sent_bytes=1000):
    said = FirstLines()
    train = source(np.arange(100) % 2, 2)
    data_checks.check_sizes(
        "digits", own, train, example_bytes, said,
        sent_bytes=sent_bytes, nodes=nodes, memory=memory, call_bytes=call_bytes,
    )  # fmt: skip
    return list(said.lines())


def test_memory_is_that_of_run_loops_logits_and_replay():
    own = data_set(batch_size=50)
    # 100 examples of 1,000 bytes: two run loops with three times as many each, two logits, 400 in the replay.
    needed = 6 * 100_000 + 100 * 2 * 4 + 400_000
    check(own, memory=needed)
    with pytest.raises(ConfigError, match="batch_size=50 of digits: needs more memory"):
        check(own, memory=needed - 1)
    # The replay may have them without their pixels.
    check(own, memory=needed - 400 * 990, sent_bytes=10)
    with pytest.raises(ConfigError, match=r"\(an example takes 1,000 bytes\)"):
        check(own, memory=needed - 400 * 990 - 1, sent_bytes=10)
    # One loop, and no replay.
    check(own, memory=100_000 + 800, nodes=False)
    # Of a large super-batch run loops read a part.
    part = data_set(**{"batch_size": 50, "inference.request_size": 10})
    check(part, memory=6 * 10_000 + 10 * 2 * 4 + 400_000)


@pytest.mark.parametrize(
    ("carried", "sent", "lines", "warns"),
    [
        ("pixels", 1000, 0, False),
        ("ids", 40, 1, False),
        ("encoded", 800, 1, False),
        ("encoded", 801, 2, True),
    ],
)
def test_what_the_replay_carries_is_said(carried, sent, lines, warns):
    said = FirstLines()
    data_checks.say_what_is_carried(carried, sent, 1000, said)
    assert len(said.lines()) == lines and any("hardly smaller" in line for line in said.lines()) == warns
    if lines:
        assert (
            f"carries {carried}: {sent} bytes an example on average, in place of the 1,000" in said.lines()[0]
        )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"filter_ratio": 0.99}, "filter_ratio=0.99 "),
        ({"replay.capacity": 10_000}, "replay.capacity=10000 "),
        ({"batch_size": 1000}, "batch_size=1000 "),
    ],
)
def test_the_field_that_asks_for_it_is_named(changes, field):
    with pytest.raises(ConfigError, match=field):
        check(data_set(**changes), memory=1000)


def test_a_larger_super_batch_is_warned_of():
    assert check(data_set(batch_size=50)) == []
    (line,) = check(data_set(batch_size=150))
    assert "of 300 is larger than its 100 examples: each comes about 3.0 times" in line


def test_what_does_not_fit_a_call_between_nodes_is_refused_before_it_is_made():
    own_fields = {"batch_size": 50, "inference.run_loops_as_nodes": True}
    own = data_set(**own_fields)
    assert check(own, call_bytes=100_000) == []
    with pytest.raises(
        ConfigError, match=r"request_size=100 of digits: 100 examples of 1,000 bytes .* most 99"
    ):
        check(own, call_bytes=99_999)
    check(data_set(**{**own_fields, "inference.request_size": 99}), call_bytes=99_999)
    check(data_set(batch_size=50), call_bytes=99_999)


def test_a_contrastive_part_of_a_batch_has_two_pairs():
    config = base.get_config()
    changes = {"task": "contrastive", "train_data": "icon_pairs", "policy": "uniform", "batch_size": 4}
    config.update_from_flattened_dict({**changes, "gradient_accumulation": 2})
    resolution.resolve(config.to_dict())
    config.gradient_accumulation = 4
    with pytest.raises(ConfigError, match=r"batch_size=4: .* two pairs .* in each of the 4 parts"):
        resolution.resolve(config.to_dict())
    config.contrastive.negatives = "batch"
    resolution.resolve(config.to_dict())
