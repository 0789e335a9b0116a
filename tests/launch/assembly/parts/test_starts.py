"""Models that start from the weights of a run: what is taken, what is left out, what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from on_digits import resolved

from classact.experiments.config import ConfigError
from classact.launch.assembly.parts import first_lines, learning, opened_weights, starts
from classact.nodes import checkpoints, starting, training


def flat(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture
def opened(saved_run, monkeypatch):
    """Changes what the weights of the run are said to be."""
    found = opened_weights.open_weights("learner.init", str(saved_run))

    def changed(**fields):
        made = dataclasses.replace(found, **fields)
        monkeypatch.setattr(starts, "open_weights", lambda field, spec: made)
        return made

    return changed


def start(digits, said=None, **changes):
    return starts.variables_of(resolved(**{"learner__init": "runs/a", **changes}), digits, said)


def test_a_run_begins_as_another_has_ended(saved_run, digits):
    """Only the weights are taken: step, random keys and optimisers are new."""
    config = resolved(seed=3, learner__init=str(saved_run))
    found = starts.variables_of(config, digits)
    fresh = training.init_state(learning.trained_models(config, digits), config.seed)
    begun = starting.start_from(fresh, found)
    expected = flat(checkpoints.load_model(saved_run / "checkpoints")["params"])
    ours, before = flat(begun.models["learner"].params), flat(fresh.models["learner"].params)
    assert ours.keys() == expected.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, expected[name])
        assert (array.dtype, array.sharding) == (before[name].dtype, before[name].sharding)
    assert begun.models["learner"].opt_state is fresh.models["learner"].opt_state
    assert any(not np.array_equal(before[name], expected[name]) for name in expected)


def test_nothing_is_read_where_nothing_is_named(digits):
    assert start(digits, learner__init="", policy="classact_online", reference__model="vit_mu_1_1") == {}


@pytest.mark.parametrize(("own", "names"), [("", {"online", "reference"}), ("vit_mu_1_1", {"online"})])
def test_the_scorers_start_where_they_have_its_model(saved_run, digits, own, names):
    changes = {"policy": "classact_online", "reference__model": own}
    found = start(digits, learner__init="", scorer__init=str(saved_run), **changes)
    assert set(found) == names
    assert start(digits, learner__init="", scorer__init=str(saved_run)) == {}


def test_a_head_goes_by_the_names_of_its_classes(opened, digits):
    there = opened()
    kernel = there.variables["params"]["head"]["kernel"]
    names = tuple(reversed(digits.class_names))
    assert there.classes.names == digits.class_names
    said = first_lines.FirstLines()
    found = start(dataclasses.replace(digits, class_names=names), said)["learner"]["params"]
    np.testing.assert_array_equal(found["head"]["kernel"], kernel[:, ::-1])
    # Some of them.
    found = start(dataclasses.replace(digits, class_names=names[:4], num_classes=4))["learner"]["params"]
    np.testing.assert_array_equal(found["head"]["kernel"], kernel[:, :-5:-1])
    assert not said.lines()


@pytest.mark.parametrize(
    ("here", "there", "why"),
    [
        ({"num_classes": 3, "class_names": ("a", "b", "0")}, {}, "'a', 'b' only here"),
        ({"num_classes": 12, "class_names": None}, {}, "10 classes there, 12 here"),
        ({"num_classes": 4, "class_names": None}, {}, "10 classes there, 4 here"),
        ({}, {"classes": None}, "does not say which classes"),
    ],
)
def test_a_head_of_other_classes_is_left_out(opened, digits, here, there, why):
    opened(**there)
    said = first_lines.FirstLines()
    found = start(dataclasses.replace(digits, **here), said)["learner"]["params"]
    assert "head" not in found and "block_0" in found
    assert any("its head is left out, and starts anew" in line and why in line for line in said.lines())


def test_positions_are_interpolated_where_the_image_size_differs(opened, digits):
    own = opened(image_shape=(8, 8, 1))
    before = own.variables["params"]["positions"]
    said = first_lines.FirstLines()
    found = start(digits, said, learner__image_size=16)["learner"]["params"]["positions"]
    assert found.shape == (1, 17, before.shape[2]) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], before[:, 0])
    assert "positions for 2×2 patches are interpolated to 4×4" in said.lines()[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learner__model": "vit_mu_2_1"}, r"not those of vit_mu_2_1 here: 12 missing \(first: block_1/"),
        ({"patch_size": 2}, r"of another shape \(first: p.* is expected\)"),
        ({"learner__options": {"pool": "mean"}}, r"options \{\}, learner\.options has \{'pool': 'mean'\}"),
    ],
)
def test_weights_of_another_model_are_refused(opened, digits, changes, words):
    opened()
    with pytest.raises(ConfigError, match=rf"^learner\.init='runs/a': .*{words}"):
        start(digits, **changes)


def test_what_is_left_over_is_named(opened, digits):
    there = opened()
    opened(variables={**there.variables, "params": {**there.variables["params"], "more": np.zeros(2)}})
    with pytest.raises(ConfigError, match=r"1 left over \(first: more\)"):
        start(digits)


def test_an_image_tower_goes_from_task_to_task(opened, digits):
    """Its head maps to classes in one, and into the common space in the other."""
    there = opened()
    paired = {"task": "contrastive", "train_data": "icon_pairs", "contrastive__context_length": 16}
    data = dataclasses.replace(digits, num_classes=0, class_names=None, vocab_size=50, end_id=1)
    said = first_lines.FirstLines()
    found = start(data, said, **paired)["learner"]
    assert set(found["params"]) == {"image"}
    image = {name: array for name, array in there.variables["params"].items() if name != "head"}
    assert flat(found["params"]["image"]).keys() == flat(image).keys()
    assert any("its image tower is taken, all else starts anew" in line for line in said.lines())
    tower = {"params": {"image": there.variables["params"], "text": {"a": np.zeros(1)}, "bias": np.zeros(())}}
    opened(task="contrastive", variables=tower)
    assert flat(start(digits)["learner"]["params"]).keys() == flat(image).keys()


@pytest.mark.parametrize(
    ("texts", "refused"),
    [
        ({"tokenizer": "clip", "causal": True}, "tokenizer"),
        ({"tokenizer": "icons", "causal": False}, "causal"),
    ],
)
def test_texts_are_read_as_they_were(opened, digits, texts, refused):
    opened(task="contrastive", texts=texts)
    with pytest.raises(ConfigError, match=f"trained with contrastive.{refused}="):
        start(digits, task="contrastive", train_data="icon_pairs")


def test_there_must_be_a_run(tmp_path, digits):
    with pytest.raises(ConfigError, match=r"learner\.init=.*no run directory.*those of a run"):
        start(digits, learner__init=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(resolved().to_dict()))
    with pytest.raises(ConfigError, match=r"learner\.init=.*no complete checkpoint"):
        start(digits, learner__init=str(tmp_path))
