"""Checkpoints of other tools in a run: what it starts from and scores with computes as the tool does."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tokenizers
from on_digits import only, resolved
from PIL import Image
from weights_cases import FIXTURES, SPECS, expected

from classact.data import prompts
from classact.experiments.config import ConfigError
from classact.launch.assembly.parts import (
    class_names_head,
    costs,
    first_lines,
    networks,
    outside_weights,
    references,
    shapes,
    sources,
    starts,
    texts,
)
from classact.models import cost
from classact.weights import opening

PAIRED = {"task": "contrastive", "train_data": "captioned_folder:nowhere"}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory):
    """The spec of a vocabulary that the fixtures' towers have embeddings for."""
    letters = ["<start>", "<end>", "<pad>", *"abcdefghijklmnopqrstuvwxyz"]
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    model = tokenizers.models.BPE({letter: number for number, letter in enumerate(letters)}, [])
    tokenizers.Tokenizer(model).save(str(path))
    return f"file:{path}"


@pytest.fixture(scope="session")
def colours(digits):
    return dataclasses.replace(digits, image_shape=(8, 8, 3))


def computed(model, variables, **batch):
    outputs, _ = jax.jit(model.apply, static_argnames="train")(variables, batch, train=False)
    return outputs


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["hf_vit", "timm_map"])
def test_a_learner_is_what_it_starts_from(colours, name):
    checkpoint, wanted = opening.read(SPECS[name]), expected(name)
    names = checkpoint.class_names
    chosen = resolved(learner__init=SPECS[name], learner__model="init", learner__options={"remat": True})
    assert chosen.learner.image_size == 8 and chosen.learner.options["remat"]
    # Of another number of classes the head is new, the rest is not.
    number = len(names) if names else 5
    data = dataclasses.replace(colours, num_classes=number, class_names=names[::-1] if names else None)
    found = starts.variables_of(chosen, data)["learner"]
    head = found["params"].get("head")
    assert (head is not None) == (names is not None)
    model = networks.learner(chosen, data)
    shaped = jax.eval_shape(lambda: model.init(jax.random.key(0)))["params"]
    anew = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shaped)
    outputs = computed(
        networks.learner(chosen, data), {"params": anew | found["params"], "state": {}}, image=wanted["image"]
    )
    close(outputs["embedding"], wanted["embedding"])
    if names:
        close(outputs["logits"], wanted["logits"][:, ::-1])


@pytest.mark.parametrize("name", ["hf_clip", "big_vision_siglip"])
def test_two_towers_are_what_they_start_from(colours, tokens, name):
    spec, wanted = f"{SPECS[name]}?tokenizer={tokens}", expected(name)
    chosen = resolved(**PAIRED, learner__init=spec, learner__model="init")
    own, towers = chosen.contrastive, opening.read(spec).architecture
    assert (own.tokenizer, own.context_length, own.embedding_size) == (tokens, 6, towers.image.outputs)
    assert own.causal == towers.text.causal
    data = dataclasses.replace(colours, vocab_size=29, end_id=1)
    found = starts.variables_of(chosen, data)["learner"]
    outputs = computed(
        networks.learner(chosen, data), {"state": {}, **found}, image=wanted["image"], text=wanted["text"]
    )
    similarities = outputs["scale"] * outputs["image_embedding"] @ outputs["text_embedding"].T
    close(similarities + outputs["bias"], wanted["similarities"])
    # Of the same weights, at another size, as the tool interpolates positions.
    larger = resolved(**PAIRED, learner__init=spec, learner__model="init", learner__image_size=12)
    data = dataclasses.replace(data, image_shape=(12, 12, 3))
    found = starts.variables_of(larger, data)["learner"]
    outputs = computed(networks.learner(larger, data), {"state": {}, **found}, image=wanted["other_image"])
    close(outputs["image_embedding"], wanted["other_image_embedding"])


def scored_with(**reference):
    return resolved(
        policy="easy_reference", **{f"reference__{name}": value for name, value in reference.items()}
    )


def test_a_classifier_is_a_reference_by_the_names_of_its_classes(colours):
    names = ("dog", "ship", "cat")
    data = dataclasses.replace(colours, num_classes=3, class_names=names)
    chosen, said = scored_with(checkpoint=SPECS["hf_vit"]), first_lines.FirstLines()
    references.check_reference(chosen, only(chosen), data, said)
    model = networks.role_models(chosen, only(chosen), data)["reference"]
    variables = references.fixed_variables(chosen, only(chosen), data)["reference"]
    wanted = expected("hf_vit")
    close(computed(model, variables, image=wanted["image"])["logits"], wanted["logits"][:, [1, 2, 0]])
    assert any("at 8×8 with patches of 4" in line for line in said.lines())
    assert costs.pretraining_macs(chosen, only(chosen), data) == 0.0
    stated = scored_with(checkpoint=SPECS["hf_vit"], pretraining_macs=5e9)
    assert costs.pretraining_macs(stated, only(stated), data) == 5e9


def test_a_classifier_of_colours_sees_grey_images_in_each_channel(digits):
    """Of pixels alone, without a mean for each channel, it does not know how."""
    names = ("cat", "dog", "ship")
    data = dataclasses.replace(digits, num_classes=3, class_names=names)
    chosen = scored_with(checkpoint=SPECS["hf_vit"])
    references.check_reference(chosen, only(chosen), data)
    grey = expected("hf_vit")["image"][..., :1]
    variables = references.fixed_variables(chosen, only(chosen), data)["reference"]
    found, whole = (
        computed(
            networks.reference(chosen, only(chosen), dataclasses.replace(data, image_shape=shape)),
            variables,
            image=image,
        )
        for shape, image in (((8, 8, 1), grey), ((8, 8, 3), np.repeat(grey, 3, axis=-1)))
    )
    close(found["logits"], whole["logits"])


def test_class_names_are_a_head(colours, tokens):
    """Logits are scale · image · mean of the prompts + bias, which is computed here by hand."""
    spec, wanted = f"{SPECS['hf_siglip']}?tokenizer={tokens}", expected("hf_siglip")
    names = ("cat", "dog")
    data = dataclasses.replace(colours, num_classes=2, class_names=names)
    chosen, said = scored_with(checkpoint=spec, head="zero_shot"), first_lines.FirstLines()
    references.check_reference(chosen, only(chosen), data, said)
    variables = references.fixed_variables(chosen, only(chosen), data)["reference"]
    model = networks.role_models(chosen, only(chosen), data)["reference"]
    found = computed(model, variables, image=wanted["image"])["logits"]
    whole, encode = opening.read(spec), texts.tokenizer_of(chosen.contrastive).encode
    own = dataclasses.replace(chosen.contrastive, tokenizer=tokens, context_length=6)
    encode = texts.tokenizer_of(own).encode
    templates = prompts.templates(chosen.contrastive.templates)
    rows = []
    for name in names:
        prompted = encode([prompts.fill(template, name) for template in templates])
        outputs = computed(whole.architecture.model(), whole.variables, text=prompted)
        mean = np.asarray(outputs["text_embedding"]).mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    params = whole.variables["params"]
    similarities = wanted["image_embedding"] @ np.stack(rows).T
    close(found, np.exp(params["log_scale"]) * similarities + params["bias"])
    assert any("2 classes by their names" in line for line in said.lines())
    # What the texts cost is in the ledger, once.
    one = cost.forward_cost(whole.architecture.model(), (8, 8, 3), "text_embedding", 6).macs
    assert class_names_head.macs(chosen, only(chosen), data) == one * 2 * len(templates)
    before = costs._computed_before(chosen, only(chosen), data)
    assert before == {
        f"checkpoint {spec}": 0.0,
        f"class names of digits by {spec}": one * 2.0 * len(templates),
    }


@pytest.mark.parametrize(
    ("reference", "names", "match"),
    [
        ({"checkpoint": SPECS["hf_vit"], "head": "zero_shot"}, ("a", "b"), "has no text tower"),
        ({"checkpoint": SPECS["hf_siglip"]}, ("a", "b"), r"task='contrastive'.*or reference\.head=zero_shot"),
        ({"checkpoint": SPECS["hf_siglip"], "head": "zero_shot"}, ("a", "b"), "does not say its tokenizer"),
        ({"checkpoint": "TOKENS", "head": "zero_shot"}, None, "no names"),
        ({"checkpoint": "TOKENS", "head": "zero_shot"}, ("a", "a"), "two classes of digits are called 'a'"),
        ({"checkpoint": SPECS["timm_map"]}, ("a", "b"), "no head, features alone: `classact probe`"),
        ({"checkpoint": SPECS["hf_vit"]}, ("a", "b", "c"), "other classes than those of digits"),
        ({"checkpoint": "hf:nowhere"}, ("a", "b"), "nowhere: no such file or folder"),
        (
            {"checkpoint": SPECS["hf_vit"], "patch_size": 2},
            ("a", "b"),
            "patch_size=4, but reference.patch_size",
        ),
    ],
)
def test_a_reference_that_cannot_be_is_said(colours, tokens, reference, names, match):
    if reference["checkpoint"] == "TOKENS":
        reference = {**reference, "checkpoint": f"{SPECS['hf_siglip']}?tokenizer={tokens}"}
    data = dataclasses.replace(colours, num_classes=len(names or "ab"), class_names=names)
    chosen = scored_with(**reference)
    with pytest.raises(ConfigError, match=match) as caught:
        references.check_reference(chosen, only(chosen), data)
    assert "\n" not in str(caught.value)


@pytest.fixture
def album(tmp_path):
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"a square of kind {number % 5}, or no square at all")
    own = {"contrastive__tokenizer": "icons", "contrastive__context_length": 8}
    return {"task": "contrastive", "train_data": f"captioned_folder:{tmp_path}", **own}


def test_a_reference_reads_its_own_tokens(tokens, album):
    """They are made beside the run's, once for each example, and nothing else reads them."""
    spec = f"{SPECS['hf_siglip']}?tokenizer={tokens}"
    chosen = resolved(**album, policy="classact", reference__checkpoint=spec)
    opened = sources.open_train_source(chosen, only(chosen))
    batch = opened.batch(np.arange(3))
    own = dataclasses.replace(chosen.contrastive, tokenizer=tokens, context_length=6)
    written = opened.source.batch(np.arange(3))["caption"].tolist()
    np.testing.assert_array_equal(batch[texts.REFERENCE_TEXT], texts.tokenizer_of(own).encode(written))
    np.testing.assert_array_equal(batch["text"], texts.tokenizer_of(chosen.contrastive).encode(written))
    assert batch["text"].shape == (3, 8)
    data = shapes.data_shape(chosen, opened)
    references.check_reference(chosen, only(chosen), data)
    model = networks.role_models(chosen, only(chosen), data)["reference"]
    variables = references.fixed_variables(chosen, only(chosen), data)["reference"]
    fields = {name: batch[name] for name in ("image", "text", texts.REFERENCE_TEXT)}
    found = computed(model, variables, **fields)["text_embedding"]
    whole = opening.read(spec)
    close(
        found,
        computed(whole.architecture.model(), variables, text=batch[texts.REFERENCE_TEXT])["text_embedding"],
    )
    # The ledger counts texts of its own length.
    counted = costs.of_reference(chosen, only(chosen), data)
    assert counted.text == cost.forward_cost(whole.architecture.model(), (8, 8, 3), "text_embedding", 6).macs


def test_what_a_run_began_with_is_compared_when_it_goes_on(tmp_path, colours):
    copied = shutil.copytree(FIXTURES / "hf_vit", tmp_path / "model")
    own = {"policy": "easy_reference", "reference__checkpoint": f"hf:{copied}"}
    chosen = resolved(**own, learner__init=f"hf:{copied}", learner__model="init")
    said = outside_weights.described(chosen, None)
    assert set(said) == {"learner.init", "data_sets.digits.reference.checkpoint"}
    assert said["learner.init"]["tool"] == "hf" and said["learner.init"]["path"] == str(copied)
    started = json.loads(json.dumps({"weights": said}))
    assert outside_weights.described(chosen, started) == said
    (copied / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"reference\.checkpoint=.*its files are others"):
        outside_weights.described(chosen, started)
    # What its models began with is not read again.
    only_init = resolved(learner__init=f"hf:{copied}", learner__model="init")
    shutil.rmtree(copied)
    found = outside_weights.described(only_init, started)
    assert found == {"learner.init": said["learner.init"]}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({}, r"learner\.init=''.*what to start from"),
        ({"learner__init": "nowhere"}, r"learner\.init='nowhere': no run directory"),
        ({"learner__init": SPECS["hf_vit"], "learner__patch_size": 2}, r"learner\.patch_size=2.*it is 4"),
        ({"learner__init": SPECS["hf_siglip"], **PAIRED}, "does not say its tokenizer"),
    ],
)
def test_a_model_of_nothing_is_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        resolved(**{"learner__model": "init", **changes})
