"""Folders of Hugging Face's transformers: `config.json`, weights, `preprocessor_config.json`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classact.weights import matching
from classact.weights.architecture import Architecture, Checkpoint, ModelInput, Tokenizer, input_of
from classact.weights.entries import Entry
from classact.weights.errors import WeightsError
from classact.weights.families import hf_clip, hf_vit, parts
from classact.weights.families.parts import Written
from classact.weights.files import opened, tensors
from classact.weights.files.tensors import TensorFile

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_MODELS = ("clip", "siglip", *hf_vit.MODELS)
# As Pillow numbers them.
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_TOKENIZERS = {
    "spiece.model": "sentencepiece",
    "tokenizer.model": "sentencepiece",
    "vocab.json": "clip",
    "tokenizer.json": "hugging_face",
}
_REFUSED = {
    "dinov3_vit": "its positions are rotary (RoPE), which the towers here do not have",
    "siglip2": "it is the one of any aspect ratio (NaFlex); those of a fixed resolution are SiglipModel",
}


def read(spec: str, path: pathlib.Path, keep_head: bool) -> Checkpoint:
    """Reads a folder.

    Args:
        spec: what the user wrote, for messages.
        path: the folder.
        keep_head: whether a classifier's head is read.

    Raises:
        WeightsError: if something is missing or damaged, or has no counterpart.
    """
    config = opened.read_json(path / "config.json")
    kind = config.get("model_type")
    if kind not in _MODELS:
        why = _REFUSED.get(str(kind), f"expected one of {', '.join(_MODELS)}")
        raise WeightsError(f"{path / 'config.json'}: model_type={kind!r}: {why}")
    file = opened.in_folder(path, _WEIGHTS)
    preprocessing = path / "preprocessor_config.json"
    images = opened.read_json(preprocessing) if preprocessing.exists() else {}
    mean, std = _normalisation(str(preprocessing), images, str(kind))
    label = str(path / "config.json")
    if kind in hf_vit.MODELS:
        return _read_vit(spec, file, config, label, images, (mean, std), keep_head)
    architecture = (hf_clip.clip if kind == "clip" else hf_clip.siglip)(label, config, mean, std)
    layout = list(hf_clip.layout(architecture))
    params = matching.read(file, layout, f"a {kind} model of {label}", hf_clip.IGNORED)
    if kind == "clip":
        params["bias"] = parts.no_bias()
    tokenizer = _tokenizer(path, architecture)
    own = _input(architecture, images, tokenizer)
    return Checkpoint(spec, architecture, own, {"params": params, "state": {}})


def positions_of(checkpoint: Checkpoint) -> str:
    """How the library brings a model's positions to another image size, of `positions.METHODS`."""
    return "antialiased" if checkpoint.architecture.image.variant.registers else "bicubic"


def _read_vit(
    spec: str,
    file: TensorFile,
    config: Mapping[str, Any],
    label: str,
    images: Mapping[str, Any],
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    keep_head: bool,
) -> Checkpoint:
    kind = str(config["model_type"])
    has_head = "classifier.weight" in file.tensors
    if has_head and keep_head and kind != "vit":
        raise WeightsError(
            f"{file.label}: the head of {kind} reads class token and patches together, which the towers "
            "here do not: say ?head=drop for the features"
        )
    keep = has_head and keep_head
    classes = tensors.length(file, "classifier.weight", 0) if keep else 0
    architecture = hf_vit.describe(label, config, *normalisation, classes)
    prefix = f"{kind}." if f"{kind}.embeddings.cls_token" in file.tensors else ""
    layout = list(hf_vit.layout(architecture, prefix))
    dropped = () if keep else (r"classifier\.(weight|bias)",)
    params = matching.read(file, layout, f"a {kind} of {label}", (*hf_vit.IGNORED, *dropped))
    names = _class_names(config, classes)
    own = _input(architecture, images, None)
    return Checkpoint(spec, architecture, own, {"params": params, "state": {}}, names)


def _class_names(config: Mapping[str, Any], classes: int) -> tuple[str, ...] | None:
    found = config.get("id2label")
    if not isinstance(found, dict) or not classes:
        return None
    names = tuple(str(found.get(str(i), "")) for i in range(classes))
    # What the library writes where nobody has named them.
    return None if any(not name or name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _normalisation(
    label: str, images: Mapping[str, Any], kind: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    default = {
        "clip": (parts.CLIP_MEAN, parts.CLIP_STD),
        "siglip": (parts.HALF, parts.HALF),
        "vit": (parts.HALF, parts.HALF),
    }.get(kind, (parts.IMAGENET_MEAN, parts.IMAGENET_STD))
    if images.get("do_normalize") is False:
        raise WeightsError(f"{label}: do_normalize=false: expected true, with image_mean and image_std")
    mean = parts.per_channel(images.get("image_mean"), default[0], f"{label}: image_mean")
    return mean, parts.per_channel(images.get("image_std"), default[1], f"{label}: image_std")


def _input(architecture: Architecture, images: Mapping[str, Any], tokenizer: Tokenizer | None) -> ModelInput:
    number = images.get("resample")
    interpolation = _INTERPOLATIONS.get(number, "bicubic") if isinstance(number, int) else "bicubic"
    size, crop = images.get("size"), 0.0
    if images.get("do_center_crop") and isinstance(size, (dict, int)):
        shortest = size if isinstance(size, int) else size.get("shortest_edge")
        crop = architecture.image.image_size[0] / shortest if isinstance(shortest, int) and shortest else 1.0
    return input_of(architecture, interpolation, crop, tokenizer)


def _tokenizer(path: pathlib.Path, architecture: Architecture) -> Tokenizer:
    assert architecture.text is not None
    end = architecture.text.end_id
    for name, kind in _TOKENIZERS.items():
        if (path / name).exists():
            return Tokenizer(kind, name, end)
    # Without a file: that of the 49,408 ids is CLIP's own, which comes with classact.
    return Tokenizer("clip" if architecture.text.vocab_size == 49408 else "unknown", "", end)


def written(checkpoint: Checkpoint) -> Written:
    """A model as such a folder.

    Raises:
        WeightsError: if none of the models there is like it.
    """
    architecture, params = checkpoint.architecture, checkpoint.variables["params"]
    layout: Sequence[Entry]
    if architecture.text is not None:
        hf_clip.check_written(checkpoint)
        layout, config = list(hf_clip.layout(architecture)), hf_clip.config_json(checkpoint)
        if not hf_clip.is_siglip(architecture):
            params = {name: value for name, value in params.items() if name != "bias"}
    else:
        hf_vit.check_written(checkpoint)
        prefix = "" if hf_vit.is_dino(architecture) else "vit."
        layout, config = list(hf_vit.layout(architecture, prefix)), hf_vit.config_json(checkpoint)
    name, arrays = config["architectures"][0], matching.write(params, layout)
    if name.startswith("Dinov2"):
        # Only masked images need it, but the library warns where it is missing.
        arrays["embeddings.mask_token"] = np.zeros((1, architecture.image.size.width), np.float32)
    return Written(
        arrays,
        "model.safetensors",
        {
            "config.json": {**config, "dtype": "float32"},
            "preprocessor_config.json": _preprocessing(checkpoint),
        },
        {"format": "pt"},
        f"from transformers import {name}\nmodel = {name}.from_pretrained('.')",
    )


def _preprocessing(checkpoint: Checkpoint) -> dict[str, Any]:
    own = checkpoint.input
    height, width = own.image_size
    number = next((key for key, value in _INTERPOLATIONS.items() if value == own.interpolation), 3)
    kind = "CLIPImageProcessor" if checkpoint.architecture.text else "ViTImageProcessor"
    found: dict[str, Any] = {
        "image_processor_type": kind,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(own.mean),
        "image_std": list(own.std),
        "resample": number,
        "size": {"height": height, "width": width},
        "do_center_crop": False,
    }
    if own.crop and kind == "CLIPImageProcessor":
        found |= {
            "do_center_crop": True,
            "size": {"shortest_edge": round(height / own.crop)},
            "crop_size": {"height": height, "width": width},
        }
    return found
