"""A reference that this run could not score with fails before any process starts."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from classact.experiments import base, config, resolution
from classact.launch.assembly.parts import learning, networks, references, shapes, sources
from classact.nodes import checkpoints, training


def resolved(**changes):
    """A configuration on digits; dotted names as `reference__checkpoint`."""
    fields = base.get_config().to_dict()
    defaults = {
        "policy": "uniform",
        "train_data": "digits",
        "patch_size": 4,
        "learner__model": "vit_mu_1_1",
        "scorer__model": "vit_mu_1_1",
    }
    for name, value in {**defaults, **changes}.items():
        group, _, inner = name.rpartition("__")
        (fields[group] if group else fields)[inner] = value
    return resolution.resolve(fields)


def only(chosen):
    """The data set of a configuration that has one."""
    (own,) = chosen.data_sets.values()
    return own


def open_train(**changes):
    chosen = resolved(**changes)
    return sources.open_train_source(chosen, only(chosen))


@pytest.fixture(scope="module")
def digits():
    return shapes.data_shape(resolved(), open_train())


def test_a_shape_is_described_as_json_has_it(digits):
    described = digits.described()
    assert json.loads(json.dumps(described)) == described
    assert described["num_examples"] == open_train().num_examples
    assert described["image_shape"] == [8, 8, 1]
    assert described["record"]["label"] == "int32[]"
    # The same data may lie elsewhere under another name.
    assert "name" not in described


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory, digits):
    """A run of vit_mu_1_1 on digits that has saved its first state."""
    run = tmp_path_factory.mktemp("reference")
    chosen = resolved()
    (run / "config.json").write_text(json.dumps(chosen.to_dict()))
    checkpointer = checkpoints.Checkpointer(run / "checkpoints")
    checkpointer.save(1, training.init_state(learning.trained_models(chosen, digits), 0))
    checkpointer.close()
    return run


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
    found = references.fixed_variables(only(chosen))
    assert set(found["reference"]) == {"params", "state"}


def test_no_reference_is_asked_for_where_none_is_used(digits):
    references.check_reference(resolved(), only(resolved()), digits)
    assert references.fixed_variables(only(resolved())) == {}


def test_another_architecture(reference, digits):
    refused(
        reference, digits, r"holds a vit_mu_1_1, but scorer\.model is vit_mu_2_1", scorer__model="vit_mu_2_1"
    )


def test_another_patch_size(reference, digits):
    refused(reference, digits, r"patch_size=2.*has shape \(.*expected \(", patch_size=2)


def test_another_number_of_classes(reference, digits):
    other = dataclasses.replace(digits, num_classes=7, class_names=None)
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
    refused(reference, digits, "holds a trap:model, but")
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


def test_the_parts_of_the_training_data_do_not_overlap():
    split = lambda name: open_train(held_out=0.25, train_split=name)  # noqa: E731
    rest, held_out, everything = split("rest"), split("held_out"), open_train()
    ids = lambda data: set(data.batch(range(data.num_examples))["id"].tolist())  # noqa: E731
    assert not ids(rest) & ids(held_out)
    assert ids(rest) | ids(held_out) == ids(everything)


def test_label_noise_keeps_the_truth(digits):
    noisy = open_train(label_noise=0.5)
    assert "clean_label" in noisy.batch(range(2))
    assert "clean_label" in shapes.data_shape(resolved(), noisy).codec.fields
    assert "clean_label" not in digits.codec.fields


@pytest.mark.parametrize(
    ("policy", "names", "roles"),
    [
        ("uniform", {"learner"}, set()),
        ("hard_learner", {"learner"}, {"online"}),
        ("classact_online", {"learner", "online", "reference"}, {"online", "reference"}),
    ],
)
def test_models_by_name_and_by_role(digits, policy, names, roles):
    chosen = resolved(policy=policy, learner__model="vit_mu_2_1")
    models = networks.make_models(chosen, digits)
    assert set(models) == names
    assert models["learner"].name == "vit_mu_2_1"
    found = networks.role_models(chosen, only(chosen), digits)
    assert set(found) == roles
    if policy == "hard_learner":
        assert found["online"].name == "vit_mu_2_1"


def test_the_trained_reference_has_twice_the_learning_rate(digits):
    trained = learning.trained_models(resolved(policy="classact_online"), digits)
    assert [item.on_super_batch for item in trained.values()] == [False, False, True]
    rates = {name: item.optimizer.learning_rate for name, item in trained.items()}
    assert rates["reference"] == 2 * rates["learner"] == 2 * rates["online"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"learner__model": "vit_mu_1_2"}, "unknown model 'vit_mu_1_2'.*did you mean"),
        ({"patch_size": 3}, "vit_mu_1_1.*digits.*3"),
        ({"learner__options": {"pols": "mean"}}, "no option 'pols'"),
    ],
)
def test_a_model_that_cannot_be_built_is_named(digits, change, match):
    with pytest.raises(config.ConfigError, match=match):
        networks.make_models(resolved(**change), digits)


def test_both_towers_compute_as_the_options_say():
    settings = {"task": "contrastive", "train_data": "icon_pairs", "patch_size": 8}
    half = {"dtype": "bfloat16", "remat": True}
    plain, chosen = (resolved(**settings, learner__options=options) for options in ({}, half))
    shape = shapes.data_shape(plain, open_train(**settings))
    models = [networks.make_models(item, shape)["learner"] for item in (plain, chosen)]
    variables = models[0].init(jax.random.key(0))
    assert all(array.dtype == np.float32 for array in jax.tree.leaves(models[1].init(jax.random.key(0))))
    rng = np.random.default_rng(0)
    images = {"image": rng.integers(0, 256, (4, *shape.image_shape), dtype=np.uint8)}
    texts = {"text": np.full((4, plain.contrastive.context_length), shape.end_id, np.int32)}
    for batch, name in ((images, "image_embedding"), (texts, "text_embedding")):

        def embed(params, model, batch=batch, name=name):
            return model.apply({"params": params, "state": {}}, batch, train=True)[0][name].sum()

        values = [float(embed(variables["params"], model)) for model in models]
        assert values[0] != values[1] and values[1] == pytest.approx(values[0], abs=0.3)
        trace = jax.make_jaxpr(jax.grad(embed), static_argnums=1)
        traced = [str(trace(variables["params"], model)) for model in models]
        assert ["bf16" in text for text in traced] == ["remat" in text for text in traced] == [False, True]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 20}, "batch_size=20 of digits: must be divisible by 8: .* 8 devices"),
        ({"batch_size": 24, "gradient_accumulation": 2}, "batch_size=24 of digits: must be divisible by 16"),
        ({"policy": "classact_online", "batch_size": 8, "filter_ratio": 0.2}, "filter_ratio.*=10 of digits"),
        (
            {"policy": "classact_online", "batch_size": 32, "filter_ratio": 0.2, "gradient_accumulation": 4,
             "reference__super_batch": 40},
            r"reference\.super_batch=40 of digits: must be divisible by 32",
        ),
        ({"batch_size": 64}, None),
    ],
)  # fmt: skip
def test_devices_share_every_batch_evenly(changes, named):
    chosen = resolved(**changes)
    learning.check_batches(chosen, 1)
    if named is None:
        learning.check_batches(chosen, 8)
        return
    with pytest.raises(config.ConfigError, match=named):
        learning.check_batches(chosen, 8)
