"""A recorded order that a run cannot go by is refused before anything starts; one that fits is gone by."""

import json

import numpy as np
import pytest
import scored_digits
from on_digits import only, open_train, resolved

from classact.experiments import base, config, resolution
from classact.launch.assembly.parts import one_loop, ordered, shapes
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.nodes.metrics import ExampleRecorder


@pytest.fixture(scope="module")
def shape():
    return scored_digits.digits_shape()


@pytest.fixture
def recorded(tmp_path, shape):
    """Two synchronous updates of a run, as it leaves them."""
    return record(tmp_path / "recorded", shape)


def record(folder, shape, **changes):
    folder.mkdir()
    settings = resolved(batch_size=16, steps=2, record_examples=True, **changes)
    recorder = ExampleRecorder(folder)
    ids = open_train().ids(np.random.default_rng(0).integers(0, 1438, (2, 16)).ravel()).reshape(2, 16)
    for step in (1, 2):
        recorder(step, {"digits": ids[step - 1]})
    started = {"data": {"digits": shape.described()}}
    (folder / "config.json").write_text(json.dumps({**settings.to_dict(), "started": started}))
    return folder


def curriculum(run, **changes):
    chosen = {"policy": "curriculum", "curriculum__record": str(run), "batch_size": 16, "steps": 2}
    return resolved(**{**chosen, **changes})


def check(settings, shape):
    said = FirstLines()
    ordered.check(settings, "digits", only(settings), shape, said)
    return said.lines()


def test_an_order_that_fits_is_gone_by(recorded, shape):
    settings = curriculum(recorded, learner__model="vit_mu_2_1")
    assert not only(settings).has_replay and not only(settings).has_servers
    assert list(check(settings, shape)) == []
    learned = []
    one_loop.train(
        settings, {"digits": shape}, lambda *step: learned.append(step[3]["digits"]["id"].tolist())
    )
    lines = (recorded / "trained_examples.jsonl").read_text().splitlines()
    assert learned == [json.loads(line)["digits"] for line in lines]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 8}, r"batch_size=8: must be 16 with curriculum\.record="),
        ({"steps": 3}, r"steps=3: must be at most 2: curriculum\.record="),
        ({"curriculum__data_set": "icons"}, "data sets digits, and none is named 'icons'"),
        ({"curriculum__record": "/nowhere"}, r"curriculum\.record='/nowhere': /nowhere cannot be read"),
    ],
)
def test_one_that_does_not_fit(recorded, shape, changes, said):
    with pytest.raises(config.ConfigError, match=said):
        check(curriculum(recorded, **changes), shape)


def test_the_order_of_other_data(recorded, shape, tmp_path):
    np.savez(tmp_path / "own.npz", image=np.zeros((40, 8, 8, 1), np.uint8), label=np.arange(40) % 10)
    settings = curriculum(recorded, train_data=f"npz:{tmp_path / 'own.npz'}")
    other = shapes.data_shape(settings, open_train(train_data=f"npz:{tmp_path / 'own.npz'}"))
    with pytest.raises(
        config.ConfigError, match=r"own\.npz is not what that run trained on: 1,757 examples fewer"
    ):
        check(settings, other)


def test_an_example_that_this_run_leaves_out(recorded, shape):
    settings = curriculum(recorded, held_out=0.5, train_split="rest")
    with pytest.raises(
        config.ConfigError, match=r"update 1 has the example with id \d+, which this run does not"
    ):
        check(settings, shape)


def test_the_order_of_several_hosts(tmp_path, shape):
    run = record(tmp_path / "hosts", shape, mesh={"hosts": 2, "fsdp": 1})
    with pytest.raises(config.ConfigError, match="recorded on 2 hosts"):
        check(curriculum(run), shape)


def test_a_file_alone_does_not_say_of_which_data_it_is(recorded, shape):
    (recorded / "config.json").unlink()
    assert "no config.json beside it" in "".join(
        check(curriculum(recorded / "trained_examples.jsonl"), shape)
    )


def test_of_several_data_sets_the_one_of_its_name_is_taken(tmp_path, shape):
    (tmp_path / "trained_examples.jsonl").write_text('{"step": 1, "a": [1, 2], "digits": [3, 4]}\n')
    settings = curriculum(tmp_path, batch_size=2, steps=1)
    assert ordered.open_order("digits", only(settings)).ids(0).tolist() == [3, 4]
    settings = curriculum(tmp_path, batch_size=2, steps=1, curriculum__data_set="a")
    assert ordered.open_order("digits", only(settings)).ids(0).tolist() == [1, 2]


def test_hosts_share_each_update():
    parts = [np.arange(6)[ordered.host_rows(6, 3, host)].tolist() for host in range(3)]
    assert parts == [[0, 1], [2, 3], [4, 5]]
    assert ordered.host_rows(6, 1, 0) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": "curriculum"}, r"curriculum\.record='': must be a run that had record_examples"),
        ({"policy": "top_share"}, r"top_share\.scores='': must be a folder of score files"),
        (
            {"policy": "top_share", "top_share": {"by": "learnability", "scores": "a"}},
            r"top_share\.reference_scores='': must be a folder of the reference's",
        ),
        (
            {"policy": "top_share", "top_share": {"scores": "a", "reference_scores": "b"}},
            r"reference_scores='b': must be empty: it is of policy 'top_share' with by='learnability'",
        ),
        (
            {"curriculum": {"record": "a"}},
            r"curriculum\.record='a': must be empty: it is of policy 'curriculum'",
        ),
        ({"top_share": {"scores": "a"}}, r"top_share\.scores='a': must be empty"),
        ({"top_share": {"share": 0.0}}, r"top_share\.share=0\.0: must be above 0"),
        ({"top_share": {"by": "best"}}, r"top_share\.by='best': must be one of"),
        ({"reference": {"scores": "a"}}, r"reference\.scores='a': must be empty, policy 'uniform'"),
        (
            {"policy": "rho", "reference": {"scores": "a"}},
            r"train_split='all': must be 'rest' with policy 'rho'",
        ),
    ],
)
def test_what_a_policy_goes_by_is_named_and_nothing_else(changes, said):
    fields = base.get_config().to_dict()
    fields["policy"] = changes.pop("policy", "uniform")
    for group, values in changes.items():
        fields[group] |= values
    with pytest.raises(config.ConfigError, match=said):
        resolution.resolve(fields)
