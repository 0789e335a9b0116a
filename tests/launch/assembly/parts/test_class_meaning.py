"""What a run's labels mean: where it is read, and what its data sets make of it."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from classact.data.classes import Classes
from classact.data.source import ArraySource, DataError
from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.launch.assembly.parts import class_meaning, shapes
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.models import registry

ABC = Classes(3, ("a", "b", "c"))


def resolved(**changes):
    config = base.get_config()
    config.update_from_flattened_dict({"policy": "uniform", "train_data": "digits", **changes})
    return resolution.resolve(config.to_dict())


def shape(name, *names, number=0):
    number = number or len(names)
    data = ArraySource(name, np.zeros((number, 2, 2, 1), np.uint8), np.arange(number), number, names or None)
    return shapes.data_shape(resolved(), data)


def write_run(folder, classes, checkpoint=None, **fields):
    data = {"digits": {"num_examples": 9, **classes}}
    (folder / "config.json").write_text(json.dumps({"started": {"data": data}, **fields}))
    if checkpoint is not None:
        path = folder / "checkpoints" / "7" / "classes"
        path.mkdir(parents=True)
        (path / "metadata").write_text(json.dumps(checkpoint))
    return folder


def agree(*shapes, workdir=None, said=None, **changes):
    data = {shape.name: shape for shape in shapes}
    return class_meaning.agreed(resolved(**changes), data, workdir, said or FirstLines())


def test_the_checkpoint_says_it_then_the_configuration(tmp_path):
    run = write_run(tmp_path, ABC.as_json(), checkpoint=Classes(2, ("x", "y")).as_json())
    assert class_meaning.recorded(run) == Classes(2, ("x", "y"))
    (run / "checkpoints" / "7" / "classes" / "metadata").write_text("[")
    assert class_meaning.recorded(run) == ABC


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"started": null}', '{"started": {"data": [1]}}'])
def test_a_run_that_does_not_say_it(tmp_path, text):
    assert class_meaning.recorded(tmp_path) is None
    (tmp_path / "config.json").write_text(text)
    assert class_meaning.recorded(tmp_path) is None


def test_an_older_run_says_a_number(tmp_path):
    assert class_meaning.recorded(write_run(tmp_path, {"num_classes": 3})) == Classes(3)


def test_data_sets_get_the_classes_of_the_one_that_has_most():
    found = agree(shape("lacking", "c", "b"), shape("first", "b", "a", "c"), shape("second", "a", "b", "c"))
    assert {item.classes for item in found.values()} == {Classes(3, ("b", "a", "c"))}
    assert found["lacking"].num_examples == 2
    assert {item.classes_of for item in found.values()} == {"first"}


def test_names_are_taken_from_where_they_are_and_numbers_must_then_be_equal():
    said = FirstLines()
    found = agree(shape("nameless", number=3), shape("named", "a", "b", "c"), said=said)
    assert found["nameless"].classes == ABC
    assert said.lines() == (
        "nameless has no class names: its labels are taken by number for the classes of named",
    )
    with pytest.raises(DataError, match=r"nameless: 2 classes here, 3 in named;.*classes=K"):
        agree(shape("nameless", number=2), shape("named", "a", "b", "c"))


def test_data_sets_of_other_classes_are_refused():
    with pytest.raises(DataError, match="second: classes differ: 'd' only here, 'a', 'b' only in first"):
        agree(shape("first", "a", "b", "c"), shape("second", "c", "d"))


def test_a_run_goes_on_in_its_own_order(tmp_path):
    write_run(tmp_path, ABC.as_json())
    found = agree(shape("lacking", "c", "b"), shape("now", "c", "b", "a"), workdir=tmp_path)
    assert {item.classes for item in found.values()} == {ABC}


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (("a", "b", "d"), "other classes than now has now: .*'c' only in the run, 'd' only now"),
        # The run still has a place for it, but the data are others.
        (("a", "b"), "'c' only in the run;"),
    ],
)
def test_a_run_does_not_go_on_with_other_classes(tmp_path, now, message):
    write_run(tmp_path, ABC.as_json())
    with pytest.raises(ConfigError, match=message):
        agree(shape("now", *now), workdir=tmp_path)


@pytest.mark.parametrize("recorded", [{"num_classes": 3}, {}])
def test_a_run_of_an_older_version_goes_on_by_number_which_is_said(tmp_path, recorded):
    said = FirstLines()
    found = agree(shape("now", "a", "b", "c"), workdir=write_run(tmp_path, recorded), said=said)
    assert found["now"].classes == ABC
    assert said.lines() == (f"the run in {tmp_path} has no class names: labels of now are taken by number",)
    if recorded:
        with pytest.raises(ConfigError, match="3 classes in the run, 4 now"):
            agree(shape("now", *"abcd"), workdir=tmp_path)


def test_what_is_learned_from_captions_has_no_classes():
    contrastive = {"task": "contrastive", "train_data": "icon_pairs"}
    data = dataclasses.replace(shape("x", "a"), num_classes=0, class_names=None)
    other = shape("y", "b", "c")
    found = agree(data, other, **contrastive)
    assert [item.classes for item in found.values()] == [Classes(0), Classes(2, ("b", "c"))]
    assert class_meaning.of_head(resolved(**contrastive), other) is None
    assert class_meaning.of_head(resolved(), other) == other.classes
    # Captions made of other names are other captions.
    with pytest.raises(DataError, match="'a' only in the run"):
        class_meaning.mapped(resolved(**contrastive), other, ABC, "the run", FirstLines())


@pytest.fixture
def model():
    return registry.create("vit_mu_1_1", num_classes=3, image_shape=(2, 2, 1), patch_size=2)


def test_a_references_logits_come_in_the_order_of_the_run(tmp_path, model):
    variables = dict(jax.jit(model.init)(jax.random.key(0)))
    variables["params"] = jax.tree.map(
        lambda array: (
            array + np.broadcast_to(np.linspace(0, 1, array.shape[-1], dtype=np.float32), array.shape)
        ),
        variables["params"],
    )
    batch = {"image": np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)}
    write_run(tmp_path, ABC.as_json())
    mapped = class_meaning.in_order_of_run(model, tmp_path, Classes(3, ("c", "a", "b")))
    # Together, so that they are one computation.
    theirs, ours = jax.jit(
        lambda variables: [made.apply(variables, batch, train=False)[0] for made in (model, mapped)]
    )(variables)
    assert len({*np.asarray(theirs["logits"][0]).tolist()}) == 3
    np.testing.assert_array_equal(ours["logits"], theirs["logits"][:, [2, 0, 1]])
    np.testing.assert_array_equal(ours["embedding"], theirs["embedding"])


def test_a_reference_in_the_runs_order_or_without_names_is_left_as_it_is(tmp_path, model):
    assert class_meaning.in_order_of_run(model, tmp_path, ABC) is model
    assert class_meaning.in_order_of_run(model, write_run(tmp_path, ABC.as_json()), ABC) is model


def test_a_reference_without_names_is_said_once(tmp_path):
    said = FirstLines()
    for _ in range(2):
        class_meaning.check_reference("field", tmp_path, shape("now", "a", "b"), said)
    assert said.lines() == (
        f"the reference in {tmp_path} has no class names: labels of now are taken by number",
    )


def test_names_that_come_twice_cannot_be_mapped_in_a_reference(tmp_path):
    write_run(tmp_path, Classes(3, ("a", "b", "a")).as_json())
    with pytest.raises(
        ConfigError, match=r"^field: this run: its classes are in another order.*'a' comes twice"
    ):
        class_meaning.check_reference("field", tmp_path, shape("now", "a", "a", "b"), None)
