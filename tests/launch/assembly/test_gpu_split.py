"""How a machine's GPUs are divided between the learner and those who score."""

import math
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.launch import program
from classact.launch.assembly import gpu_split
from classact.launch.assembly.gpu_split import Work, learners_gpus
from classact.launch.assembly.parts import networks, shapes, sources
from classact.launch.engines.gpus import assign

EVEN = Work(training=1.0, scoring=1.0)


def resolved(**changes):
    """A configuration on digits that scores; dotted names as `inference__servers`."""
    fields = base.get_config().to_dict()
    defaults = {
        "policy": "hard_learner",
        "train_data": "digits",
        "patch_size": 4,
        "learner__model": "vit_mu_1_1",
    }
    for name, value in {**defaults, **changes}.items():
        group, _, inner = name.rpartition("__")
        target = fields
        for part in group.split("__") if group else ():
            target = target[part]
        target[inner] = value
    return resolution.resolve(fields)


def wishes(gpus, work=EVEN, **changes):
    """GPUs of each node by kind; those of one kind have equally many."""
    found = gpu_split.wishes(resolved(**changes), lambda: work, gpus)
    by_kind = {}
    for (label, _), value in found.items():
        assert by_kind.setdefault(label.split("/")[0], value) == value
    # They must be there.
    assign(found, [str(index) for index in range(gpus)])
    return by_kind


def test_one_gpu_is_shared_and_evaluators_have_none_of_it():
    assert wishes(1) == {"learner": 0.75, "inference": 0.25, "evaluator": 0.0}
    assert wishes(1, inference__servers=2)["inference"] == 0.125


def test_without_scorers_the_learner_has_all():
    assert wishes(1, policy="uniform") == {"learner": 1, "evaluator": 0.0}
    assert wishes(8, policy="uniform")["learner"] == 8


@pytest.mark.parametrize(
    ("gpus", "work", "batch_size", "learner", "server"),
    [
        (8, Work(9.0, 1.0), 56, 7, 1),
        (8, Work(3.0, 1.0), 60, 6, 2),
        # 5, 6 and 7 devices cannot share 64 examples evenly.
        (8, Work(9.0, 1.0), 64, 4, 4),
        (8, Work(1.0, 7.0), 64, 1, 7),
        (2, Work(9.0, 1.0), 64, 1, 1),
    ],
)
def test_gpus_are_divided_as_the_work_is(gpus, work, batch_size, learner, server):
    found = wishes(gpus, work, batch_size=batch_size)
    assert (found["learner"], found["inference"]) == (learner, server)


def test_several_servers_have_equal_parts():
    assert wishes(8, batch_size=60, work=Work(3.0, 1.0), inference__servers=2)["inference"] == 1
    assert wishes(8, batch_size=60, work=Work(3.0, 1.0), inference__servers=4)["inference"] == 0.5
    assert wishes(8, batch_size=60, work=Work(3.0, 1.0), inference__servers=3)["inference"] == 0.5
    assert wishes(8, inference__servers=3, work=EVEN)["inference"] == 1


def test_what_is_said_holds_and_the_rest_is_divided():
    said = {"resources__learner__gpus": 6.0, "batch_size": 60}
    assert wishes(8, **said)["inference"] == 2
    assert wishes(8, **said, resources__evaluator__gpus=1.0) == {"learner": 6, "inference": 1, "evaluator": 1}
    assert wishes(8, **said, resources__inference__gpus=0.0)["inference"] == 0
    scorers = {"resources__inference__gpus": 0.25, "inference__servers": 4}
    assert wishes(8, **scorers, batch_size=56)["learner"] == 7
    assert wishes(8, **scorers)["learner"] == 4
    assert wishes(1, resources__inference__gpus=0.25) == {
        "learner": 0.75,
        "inference": 0.25,
        "evaluator": 0.0,
    }
    assert wishes(1, resources__learner__gpus=0.5, inference__servers=2)["inference"] == 0.25


def test_several_learner_hosts_on_one_machine_have_equal_parts():
    found = wishes(8, Work(3.0, 1.0), mesh__hosts=2, batch_size=60)
    assert (found["learner"], found["inference"]) == (3, 2)
    assert wishes(8, Work(3.0, 1.0), mesh__fsdp=2, batch_size=64)["learner"] == 4


@pytest.mark.parametrize(
    ("gpus", "changes", "message"),
    [
        (
            8,
            {"resources__learner__gpus": 8.0},
            r"inference\.gpus=-1: resources\.learner\.gpus=8 leaves none of 8",
        ),
        (
            1,
            {"resources__inference__gpus": 1.0},
            r"learner\.gpus=-1: resources\.inference\.gpus=1 leaves none of 1",
        ),
        (
            1,
            {"resources__evaluator__gpus": 0.2},
            r"inference\.gpus=-1: resources\.evaluator\.gpus=0\.2 leaves",
        ),
        (2, {"mesh__hosts": 2}, r"learner\.gpus=-1: the default leaves none of 2 GPUs .* mesh\.hosts=2"),
    ],
)
def test_a_node_that_nothing_is_left_for_is_named(gpus, changes, message):
    with pytest.raises(ConfigError, match=message):
        wishes(gpus, **changes)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(2, 16))
def test_no_other_number_of_gpus_gives_more_updates(training, scoring, gpus):
    def updates(count):
        return min(count / training, (gpus - count) / scoring)

    count = learners_gpus(Work(training, scoring), gpus)
    assert 1 <= count < gpus
    assert math.isclose(updates(count), max(map(updates, range(1, gpus))))
    assert learners_gpus(Work(training, scoring), gpus, lambda count: False) == 0


def test_work_is_counted_as_the_ledger_counts():
    """An update of the learner is three passes over b, and its scoring one pass over B = 2·b."""
    config = resolved(filter_ratio=0.5)
    (own,) = config.data_sets.values()
    data = shapes.data_shape(config, sources.open_train_source(config, own))
    macs = networks.forward_macs(networks.learner(config, data), config, data)
    assert gpu_split.work_of(config, data) == Work(3 * macs * own.batch_size, 2 * macs * own.batch_size)
    uniform = resolved(policy="uniform")
    assert gpu_split.work_of(uniform, data) == Work(3 * macs * own.batch_size, 0.0)


def test_all_nodes_that_compute_are_those_of_the_program():
    config = resolved(inference__servers=2, inference__run_loops_as_nodes=True, mesh__hosts=2)
    (own,) = config.data_sets.values()
    data = shapes.data_shape(config, sources.open_train_source(config, own))
    built = program.build_program(config, pathlib.Path("run"), dict.fromkeys(config.data_sets, data))
    nodes = {(label, index) for label, group in built.groups.items() for index in range(len(group))}
    computing = {key for key in nodes if key[0].split("/")[0] in ("learner", "inference", "evaluator")}
    assert set(gpu_split.wishes(config, lambda: EVEN, 8)) == computing != nodes
