"""Checkpoints that their own tools have made, read: what is computed of them is what the tool computed."""

import functools
import json
import math

import jax
import numpy as np
import pytest
from weights_cases import FIXTURES, IMAGES, PAIRS, SPECS, expected

from classact.models import images, transformer
from classact.weights import opening
from classact.weights.errors import WeightsError
from classact.weights.families import timm


def computed(checkpoint, **batch):
    model = checkpoint.architecture.model()
    outputs, state = jax.jit(model.apply, static_argnames="train")(checkpoint.variables, batch, train=False)
    assert state == {}
    return {name: np.asarray(value) for name, value in outputs.items()}


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_images_and_texts_are_where_the_tool_has_them(name):
    wanted = expected(name)
    found = computed(opening.read(SPECS[name]), image=wanted["image"], text=wanted["text"])
    close(found["image_embedding"], wanted["image_embedding"])
    close(found["text_embedding"], wanted["text_embedding"])
    similarities = found["scale"] * found["image_embedding"] @ found["text_embedding"].T + found["bias"]
    close(similarities, wanted["similarities"])
    other = computed(opening.read(f"{SPECS[name]}?image_size=12"), image=wanted["other_image"])
    close(other["image_embedding"], wanted["other_image_embedding"])


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_where_the_tool_has_them(name):
    wanted = expected(name)
    found = computed(opening.read(SPECS[name]), image=wanted["image"])
    close(found["embedding"], wanted["embedding"])
    close(found["logits"], wanted.get("logits", wanted["embedding"]))
    other = computed(opening.read(f"{SPECS[name]}?image_size=12"), image=wanted["other_image"])
    close(other["logits"], wanted.get("other_logits", wanted.get("other_embedding")))


def test_weights_of_a_training_in_half_precision_are_those_of_the_file(tmp_path):
    """PyTorch's own file, its names behind `module.`; a JSON file says the model."""
    said = json.loads((FIXTURES / "open_clip_clip" / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny.json").write_text(json.dumps(said))
    whole = opening.read(SPECS["open_clip_clip"]).variables["params"]
    spec = f"open_clip:{FIXTURES}/open_clip_clip/epoch_3.pt?model={tmp_path}/tiny.json"
    half = opening.read(spec).variables["params"]
    rounded = jax.tree.map(lambda array: np.asarray(array, np.float16).astype(np.float32), whole)
    jax.tree.map(np.testing.assert_array_equal, half, rounded)


def test_what_a_model_takes_is_said():
    clip, siglip, vit = (opening.read(SPECS[name]) for name in ("hf_clip", "open_clip_siglip", "hf_vit"))
    assert (
        clip.input.image_size == (8, 8) and clip.input.mean == (0.48, 0.46, 0.41) and clip.input.crop == 1.0
    )
    assert clip.input.tokenizer.end_id == 39 and clip.input.context_length == 6
    assert siglip.input.tokenizer.kind == "hugging_face" and siglip.architecture.max_scale == math.inf
    assert siglip.input.tokenizer.name == "timm/ViT-B-16-SigLIP"
    assert vit.class_names == ("cat", "dog", "ship") and vit.input.tokenizer is None
    assert opening.read(SPECS["timm_mean"]).class_names == tuple("abcde")


def test_a_head_is_dropped_where_it_is_asked_for():
    checkpoint = opening.read(f"{SPECS['hf_vit']}?head=drop&image_size=12")
    assert "head" not in checkpoint.variables["params"] and checkpoint.class_names is None
    assert checkpoint.architecture.image.outputs == 16 and checkpoint.input.image_size == (12, 12)
    for name in ("timm_cls", "big_vision_gap"):
        dropped = opening.read(f"{SPECS[name]}?head=drop").variables["params"]
        kept = opening.read(SPECS[name]).variables["params"]
        assert set(kept) - set(dropped) == {"head"}


def test_grey_images_are_seen_in_every_channel():
    checkpoint = opening.read(SPECS["hf_dinov2"])
    own = checkpoint.architecture.image.variant
    grey = expected("hf_dinov2")["image"][..., :1]
    seen = images.scale(grey, np.float32, own.mean, own.std)
    np.testing.assert_array_equal(
        seen, images.scale(np.repeat(grey, 3, axis=-1), np.float32, own.mean, own.std)
    )
    apply = functools.partial(checkpoint.architecture.model(channels=1).apply, train=False)
    found, _ = jax.eval_shape(apply, checkpoint.variables, {"image": grey})
    assert found["embedding"].shape == (3, 16)


def test_a_name_of_timms_means_what_it_means_there():
    """Heads, activation, epsilon and normalisation show in no array: what timm builds under 139 names."""
    names = json.loads((FIXTURES / "timm_names.json").read_text())
    refused = []
    for name, (activation, epsilon, width, heads, mean, std) in names.items():
        try:
            said = timm.named(name, "it")
        except WeightsError:
            refused.append(name)
            continue
        assert said == timm.Named(activation, epsilon, tuple(mean), tuple(std)), name
        assert timm.heads_of(width) == heads, name
    # Of the last one heads are of another size than its width says, the first one's stem is convolutional.
    assert sorted(refused) == ["vit_base_mci_224", "vit_base_patch16_gap_224"] and len(names) > 130


def test_names_of_open_clips_have_its_sizes(tmp_path):
    from classact.weights.families import open_clip

    for name, layers, mlp, heads, text_width in (
        ("ViT-B-32-quickgelu", 12, 3072, 12, 512),
        ("ViT-L-14-336", 24, 4096, 16, 768),
        ("ViT-bigG-14", 48, 8192, 16, 1280),
    ):
        found = open_clip.describe("it", NoFile(), open_clip._of_name("it", name), {})
        size = found.image.size
        assert (size.depth, size.mlp, size.heads, found.text.size.width) == (layers, mlp, heads, text_width)
        assert found.image.variant.activation == ("quick_gelu" if "quick" in name else "gelu")
    assert found.image.size == transformer.Size(1664, 48, 8192, 16)
    assert open_clip.describe("it", NoFile(), open_clip._of_name("it", "ViT-L-14-336"), {}).image.grid == (
        24,
        24,
    )


class NoFile:
    label, tensors = "it", {}
