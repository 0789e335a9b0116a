"""A reference that this run could not score with fails before any process starts."""

import dataclasses
import json
import shutil

import pytest
from on_digits import only, resolved

from classact.experiments import config
from classact.launch.assembly.parts import first_lines, reference_models, references


@pytest.fixture
def reference(saved_run, tmp_path):
    return shutil.copytree(saved_run, tmp_path / "run")


def check(reference, data, **changes):
    chosen = {"policy": "classact", "reference__checkpoint": str(reference), **changes}
    config_ = resolved(**chosen)
    references.check_reference(config_, only(config_), data)


def refused(reference, data, match, **changes):
    with pytest.raises(config.ConfigError, match=match) as caught:
        check(reference, data, **changes)
    assert str(caught.value).startswith(f"reference.checkpoint={str(reference)!r}")


def test_a_fitting_reference_passes(reference, digits):
    check(reference, digits)
    chosen = resolved(policy="classact", reference__checkpoint=str(reference))
    found = references.fixed_variables(chosen, only(chosen), digits)
    assert set(found["reference"]) == {"params", "state"}


def test_no_reference_is_asked_for_where_none_is_used(digits):
    references.check_reference(resolved(), only(resolved()), digits)
    assert references.fixed_variables(resolved(), only(resolved()), digits) == {}


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("model", "vit_mu_2_1", r"it holds a vit_mu_1_1, but reference\.model is vit_mu_2_1"),
        ("patch_size", 2, r"it has patch_size=4, but reference\.patch_size is 2"),
        ("options", {"pool": "mean"}, r"does not fit vit_mu_1_1.*'cls'"),
        ("image_size", 16, r"does not fit vit_mu_1_1.*images \(16, 16, 1\).*'positions'"),
    ],
)
def test_it_is_what_this_run_says_of_it(reference, digits, field, value, match):
    with pytest.raises(config.ConfigError, match=match):
        check(reference, digits, **{f"reference__{field}": value})


def test_it_says_itself_what_it_is(reference, digits):
    """Neither the scorer nor the run need have its size; how it is computed is the scorer's affair."""
    said = first_lines.FirstLines()
    changes = {"patch_size": 2, "scorer__model": "vit_mu_2_1", "scorer__options": {"dtype": "bfloat16"}}
    chosen = resolved(policy="classact", reference__checkpoint=str(reference), **changes)
    references.check_reference(chosen, only(chosen), digits, said)
    assert "the reference is a vit_mu_1_1 with patches of 4" in said.lines()
    found = reference_models.described(chosen, only(chosen), digits).model
    assert (found.model, found.patch_size, found.image_size) == ("vit_mu_1_1", 4, 0)
    assert found.options == {"dtype": "bfloat16"}


def recorded(run, **changes):
    """Changes what a run's configuration says."""
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**stored, **changes}))


@pytest.mark.parametrize(
    ("theirs", "ours", "size"),
    [
        ((8, 8, 1), (16, 16, 1), 8),
        ((8, 8, 1), (8, 8, 1), 0),
        ((8, 8, 3), (8, 8, 1), None),
        ((8, 12, 1), (8, 8, 1), None),
    ],
)
def test_it_looks_at_images_of_its_own_size(reference, digits, theirs, ours, size):
    recorded(reference, started={"data": {"digits": {"image_shape": list(theirs)}}})
    data = dataclasses.replace(digits, image_shape=ours)
    if size is None:
        refused(reference, data, r"trained on images \(8, .*are \(8, 8, 1\): (other channels|only square)")
        return
    check(reference, data)
    chosen = resolved(policy="classact", reference__checkpoint=str(reference))
    assert reference_models.described(chosen, only(chosen), data).model.image_size == size


@pytest.mark.parametrize(
    ("field", "value"), [("model", 3), ("model", ""), ("options", []), ("patch_size", "4")]
)
def test_a_learner_that_is_none(reference, digits, field, value):
    stored = json.loads((reference / "config.json").read_text())["learner"]
    recorded(reference, learner={**stored, field: value})
    refused(reference, digits, rf"its config\.json has learner\.{field}=")


def test_another_number_of_classes(reference, digits):
    other = dataclasses.replace(digits, num_classes=7, class_names=None)
    refused(reference, other, "10 classes in the reference, 7 in the data")
    # An older run does not say it, its parameters do.
    shutil.rmtree(reference / "checkpoints" / "1" / "classes")
    refused(reference, other, r"learned 10 classes, expected 7$")


def test_other_images(reference, digits):
    other = dataclasses.replace(digits, image_shape=(8, 8, 3))
    refused(reference, other, r"images \(8, 8, 3\).*expected")


def test_no_run_directory(tmp_path, digits):
    refused(tmp_path / "nothing", digits, "no run directory")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"learner": 3}', pytest.param("[" * 100_000, id="deep")])
def test_a_damaged_configuration(reference, digits, text):
    (reference / "config.json").write_text(text)
    refused(reference, digits, r"config\.json")


def test_what_a_references_configuration_names_is_not_imported(reference, digits, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    stored = json.loads((reference / "config.json").read_text())
    stored |= {"policy": "trap:policy", "learner": {**stored["learner"], "model": "trap:model"}}
    (reference / "config.json").write_text(json.dumps(stored))
    refused(reference, digits, "holds a trap:model, but nothing here names this code")
    assert not (tmp_path / "sprung").exists()


def test_a_run_without_a_checkpoint(reference, digits):
    shutil.rmtree(reference / "checkpoints")
    refused(reference, digits, "no complete checkpoint")


def test_a_damaged_checkpoint(reference, digits):
    for path in (reference / "checkpoints" / "1" / "learner").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    refused(reference, digits, "damaged or incomplete")


HELD_OUT = {"train_data": "digits", "held_out": 0.25, "data_seed": 3, "train_split": "held_out"}


@pytest.mark.parametrize("policy", ["rho", "classact_ho"])
@pytest.mark.parametrize(
    "change", [{}, {"held_out": 0.5}, {"data_seed": 0}, {"train_split": "all"}, {"train_data": "icons"}]
)
def test_a_held_out_reference_learned_from_the_other_part(reference, digits, policy, change):
    stored = json.loads((reference / "config.json").read_text())
    (reference / "config.json").write_text(json.dumps({**stored, **HELD_OUT, **change}))
    ours = {**HELD_OUT, "train_split": "rest", "policy": policy}
    if change:
        refused(reference, digits, f"policy '{policy}' needs a reference trained with", **ours)
    else:
        check(reference, digits, **ours)
