"""A checkpoint of another tool, told as `config.json` tells a run: whoever reads runs reads it too."""

import dataclasses
import functools
import hashlib
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.models import text_options, transformer
from classact.weights import opening
from classact.weights.architecture import Architecture, Checkpoint, TextTower
from classact.weights.errors import WeightsError

# How the registry's models resize; what else a tool has is nearest to bicubic.
_INTERPOLATIONS = {"bilinear": "bilinear"}
_CHUNK = 1 << 20


@functools.lru_cache(maxsize=8)
def _fields(spec: str) -> dict[str, Any]:
    checkpoint = opening.read(spec)
    architecture, own = checkpoint.architecture, checkpoint.input
    tower, texts = architecture.image, architecture.text
    height, width = tower.image_size
    if height != width:
        raise WeightsError(f"{spec}: it takes images of {height}×{width}: a run resizes to square ones")
    learner = {
        "model": tower.name,
        "text_model": _text_model(texts) if texts else "",
        "options": tower.options,
        "text_options": _text_options(architecture) if texts else {},
        "image_size": height,
        "patch_size": tower.patch_size,
        "interpolation": _INTERPOLATIONS.get(own.interpolation, "bicubic"),
    }
    data: dict[str, Any] = {"image_shape": [height, width, tower.channels]}
    found: dict[str, Any] = {"learner": learner, "patch_size": tower.patch_size}
    if texts is not None:
        found |= {"task": "contrastive", "contrastive": _contrastive(spec, checkpoint, texts)}
    else:
        found["task"] = "classification"
        if tower.variant.head:
            names = checkpoint.class_names
            data |= {"num_classes": tower.outputs, "class_names": list(names) if names else None}
    return {**found, "started": {"data": {spec: data}}}


def fields(spec: str) -> Mapping[str, Any]:
    """What `config.json` would say: `task`, `learner`, `contrastive`, and `started` with classes and images.

    Reads the checkpoint once a process; blocks for as long as that takes.

    Args:
        spec: see `opening`.

    Raises:
        WeightsError: as `opening.read`; also for images that are not square.
    """
    return _fields(spec)


def _text_model(texts: TextTower) -> str:
    named = (f"text_{name}" for name, size in transformer.SIZES.items() if size == texts.size)
    return next(named, text_options.SIZELESS)


def _text_options(architecture: Architecture) -> dict[str, Any]:
    """Those that are not the defaults, as JSON has them; and which tokens there are, always."""
    texts = architecture.text
    assert texts is not None
    said = {
        **(dataclasses.asdict(texts.size) if _text_model(texts) == text_options.SIZELESS else {}),
        **dataclasses.asdict(texts.style),
        "pool": texts.pool,
        "projection_bias": texts.projection_bias,
        "max_scale": architecture.max_scale if math.isfinite(architecture.max_scale) else 0.0,
        "vocab_size": texts.vocab_size,
        "end_id": texts.end_id,
    }
    defaults = text_options.TextOptions()
    return {name: value for name, value in said.items() if value != getattr(defaults, name)}


def _contrastive(spec: str, checkpoint: Checkpoint, texts: TextTower) -> dict[str, Any]:
    return {
        "tokenizer": tokenizer_spec(spec, checkpoint),
        "context_length": texts.context_length,
        "embedding_size": checkpoint.architecture.image.outputs,
        "causal": texts.causal,
    }


def tokenizer_spec(spec: str, checkpoint: Checkpoint) -> str:
    """The spec of a checkpoint's tokenizer, as `contrastive.tokenizer` has it; "" if nobody knows it."""
    stated = opening.options_of(spec).get("tokenizer")
    if stated:
        return stated
    tool, own = spec.partition(":")[0], checkpoint.input.tokenizer
    folder = opening.path_of(spec)
    folder = folder if folder.is_dir() else folder.parent
    if own is None:
        return ""
    if own.kind == "classact":
        return own.name
    if tool in ("hf", "open_clip") and own.name and (tool == "hf" or (folder / "tokenizer.json").exists()):
        return f"{tool}:{folder}"
    # CLIP's own comes with classact.
    return "open_clip" if own.kind == "clip" else ""


def provenance(spec: str) -> dict[str, Any]:
    """What is recorded of a checkpoint that a run starts from or scores with.

    Reads its files once more.

    Returns:
        `spec`, `tool`, `path` (resolved), `model` (its name in the registry) and `digest`, `sha256:HEX` of
        the names and contents of its files.
    """
    path, digest = opening.path_of(spec).resolve(), hashlib.sha256()
    for file in _files(path):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            while piece := opened.read(_CHUNK):
                digest.update(piece)
    return {
        "spec": spec,
        "tool": spec.partition(":")[0],
        "path": str(path),
        "model": fields(spec)["learner"]["model"],
        "digest": f"sha256:{digest.hexdigest()}",
    }


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """Those that may be read of a checkpoint: in a folder its weights, configuration and vocabulary."""
    if path.is_file():
        return [path]
    kinds = (".json", ".safetensors", ".bin", ".model", ".txt")
    return sorted(file for file in path.iterdir() if file.suffix in kinds and file.is_file())
