"""A run's model written for other tools, by the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights_cases import SPECS

from classact.data.classes import Classes
from classact.launch.assembly.parts import run_weights
from classact.launch.commands import cli
from classact.models import registry, text, two_tower
from classact.nodes import checkpoints, training
from classact.weights import opening
from classact.weights.errors import WeightsError

SQUARE, OBLONG = (8, 8, 3), (12, 8, 3)
CLIP = {"pre_norm": True, "patch_bias": False, "head_bias": False}
SHARED = {"steps": 3, "data_sets": {"it": {"train_data": "tar:somewhere", "policy": "uniform"}}}


def save_run(folder, models, shape, classes=None, end_id=2, **fields):
    """A run directory as a finished run leaves it, of freshly initialised models."""
    rng = np.random.default_rng(0)
    # Faster than to initialise them.
    variables = {
        name: jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype),
            jax.eval_shape(model.init, jax.random.key(0)),
        )
        for name, model in models.items()
    }
    states = {name: training.ModelState(own["params"], own["state"], ()) for name, own in variables.items()}
    state = training.TrainState(jnp.int32(3), jax.random.key(0), states)
    checkpointer = checkpoints.Checkpointer(folder / "checkpoints", classes=classes)
    checkpointer.save(3, state)
    checkpointer.close()
    data = {"image_shape": list(shape), "end_id": end_id, "vocab_size": 20}
    config = {**SHARED, "started": {"data": {"it": data}}, **fields}
    (folder / "config.json").write_text(json.dumps(config))
    result = {
        "status": "completed",
        "steps": 3,
        "final": {"eval/test/top1": 0.25},
        "ledger": {"total_macs": 5e9},
    }
    (folder / "result.json").write_text(json.dumps(result))
    return jax.device_get(variables)


def vit(name, outputs, patch_size, shape, **options):
    return registry.create(name, num_classes=outputs, image_shape=shape, patch_size=patch_size, **options)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    models = {
        "learner": vit("vit_mu_2_1", 3, 4, SQUARE, pool="mean"),
        "online": vit("vit_mu_1_1", 3, 2, SQUARE),
    }
    found = save_run(
        folder,
        models,
        SQUARE,
        Classes(3, ("cat", "dog", "ship")),
        task="classification",
        learner={"model": "vit_mu_2_1", "text_model": "", "options": {"pool": "mean", "dtype": "bfloat16"}},
        scorer={"model": "vit_mu_1_1", "text_model": "", "options": {}},
        reference={"checkpoint": "runs/other"},
    )
    return folder, found


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    texts = text.TextTransformer(text.size("text_mu_1_1"), 20, 6, 2, 5)
    learner = two_tower.build(vit("vit_mu_1_1", 5, 4, OBLONG, **CLIP), texts)
    found = save_run(
        folder,
        {"learner": learner},
        OBLONG,
        task="contrastive",
        learner={"model": "vit_mu_1_1", "text_model": "text_mu_1_1", "options": CLIP},
        scorer={"model": "haiku_mlp", "text_model": "text_mu_1_1", "options": {}},
        contrastive={"causal": True, "tokenizer": "file:words.json"},
    )
    return folder, found, learner


def export(*arguments):
    return cli.main(["classact", "export", *map(str, arguments)])


def equal(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_classifier_is_written_and_read_again(classifier, tmp_path, clean_flags, capsys):
    run, variables = classifier
    assert export(run, "--format=big_vision", f"--out={tmp_path / 'out'}") == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / "out" / name) for name in ("README.md", "checkpoint.npz")]
    again = opening.read(f"big_vision:{tmp_path}/out/checkpoint.npz")
    equal(again.variables["params"], variables["learner"]["params"])
    card = (tmp_path / "out" / "README.md").read_text()
    for part in (
        f"learner of {run.name}",
        "3 classes: cat, dog, ship",
        "tar:somewhere",
        "| eval/test/top1 | 0.25 |",
    ):
        assert part in card
    assert "| total_macs | 5e+09 |" in card


def test_the_scorer_is_written_too(classifier, tmp_path, clean_flags):
    run, variables = classifier
    assert export(run, "--format=hf", f"--out={tmp_path / 'out'}", "--of=online") == 0
    again = opening.read(f"hf:{tmp_path}/out")
    equal(again.variables["params"], variables["online"]["params"])
    assert again.class_names == ("cat", "dog", "ship") and again.architecture.image.patch_size == 2


def test_a_pair_of_towers_computes_what_the_runs_model_computes(pair, tmp_path, clean_flags, capsys):
    run, variables, learner = pair
    assert export(run, "--format=open_clip", f"--out={tmp_path / 'out'}") == 0
    assert "need the tokenizer classact file:words.json, which is not written" in capsys.readouterr().err
    again = opening.read(f"open_clip:{tmp_path}/out")
    equal(again.variables["params"], variables["learner"]["params"])
    assert again.architecture.image.image_size == OBLONG[:2]
    # What is said of a run is its model to the last operation.
    batch = {"image": np.zeros((2, *OBLONG), np.uint8), "text": np.zeros((2, 6), np.int32)}
    traced = {
        str(jax.make_jaxpr(lambda v, model=model: model.apply(v, batch, train=False))(variables["learner"]))
        for model in (learner, run_weights.of_run(run, "learner").architecture.model())
    }
    assert len(traced) == 1


def test_a_checkpoint_is_a_run_or_one_of_another_tool(pair):
    run, variables, _ = pair
    equal(run_weights.open_checkpoint(str(run)).variables, variables["learner"])
    assert run_weights.open_checkpoint(SPECS["hf_vit"]).class_names == ("cat", "dog", "ship")
    with pytest.raises(WeightsError, match=r"nowhere/config\.json: no such file"):
        run_weights.open_checkpoint("nowhere")


def test_one_of_another_tool_is_converted(tmp_path, clean_flags):
    assert export(SPECS["big_vision_siglip"], "--format=hf", f"--out={tmp_path / 'out'}") == 0
    assert "## Training" not in (tmp_path / "out" / "README.md").read_text()
    first, again = opening.read(SPECS["big_vision_siglip"]), opening.read(f"hf:{tmp_path}/out")
    equal(again.variables, first.variables)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format=hf", "--out=x"], "expected one RUN_DIR, got nothing"),
        (["RUN", "--out=x"], "--format is missing"),
        (["RUN", "--format=hf"], "--out is missing"),
        (["RUN", "--format=onnx", "--out=x"], "should be one of <hf|open_clip|timm|big_vision|safetensors>"),
        (["RUN", "--format=hf", "--out=x"], "ViTForImageClassification has no such model: it would need"),
        (["RUN", "--format=hf", "--out=x", "--of=reference"], "it is fixed, of the run runs/other"),
        (["PAIR", "--format=hf", "--out=x"], "CLIPModel has no such model: it would need end_id"),
        (["RUN", "--format=safetensors", "--out=RUN"], "something is there already"),
        (["/nowhere", "--format=hf", "--out=x"], "/nowhere/config.json: no such file"),
        (["hf:/nowhere", "--format=hf", "--out=x"], "/nowhere: no such file or folder"),
        (["PAIR", "--format=hf", "--out=x", "--of=online"], "it is a haiku_mlp: only models vit_"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_line(
    classifier, pair, arguments, said, tmp_path, monkeypatch, clean_flags, capsys
):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("RUN", str(classifier[0])).replace("PAIR", str(pair[0])) for word in arguments]
    assert export(*words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "x").exists()
