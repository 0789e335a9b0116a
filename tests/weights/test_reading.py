"""Checkpoints that their own tools have made, read: what is computed of them is what the tool computed."""

import pathlib

import jax
import numpy as np
import pytest

from classact.weights import opening

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
PAIRS = {
    "hf_clip": "hf:{}",
    "hf_siglip": "hf:{}",
    "open_clip_clip": "open_clip:{}",
    "open_clip_siglip": "open_clip:{}",
    "big_vision_siglip": "big_vision:{}/checkpoint.npz",
}
IMAGES = {
    "hf_vit": "hf:{}",
    "hf_dinov2": "hf:{}",
    "hf_dinov2_registers": "hf:{}",
    "timm_cls": "timm:{}",
    "timm_mean": "timm:{}",
    "timm_map": "timm:{}",
    "big_vision_gap": "big_vision:{}/checkpoint.npz",
    "big_vision_tok": "big_vision:{}/checkpoint.npz",
}
SPECS = {name: spec.format(FIXTURES / name) for name, spec in (PAIRS | IMAGES).items()}
HALVES = f"open_clip:{FIXTURES}/open_clip_clip/epoch_3.pt?model={{}}"


def expected(name):
    with np.load(FIXTURES / name / "expected.npz") as file:
        return dict(file)


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
