"""Plain safetensors: our own names, with a `model.json` that says what the model is.

It holds every model that the towers here can be.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from classact.weights import architecture as described
from classact.weights import entries, matching
from classact.weights.architecture import Checkpoint, ModelInput, Tokenizer
from classact.weights.entries import Entry
from classact.weights.errors import WeightsError
from classact.weights.families import timm
from classact.weights.families.parts import Written
from classact.weights.files import opened

POSITIONS = "antialiased"
DESCRIPTION = "model.json"
FORMAT = "classact-model-1"
_WEIGHTS = "model.safetensors"


def read(spec: str, path: pathlib.Path, keep_head: bool) -> Checkpoint:
    """Reads a folder.

    Args:
        spec: what the user wrote, for messages.
        path: the folder.
        keep_head: whether a classifier's head is read.

    Raises:
        WeightsError: if something is missing or damaged, or is not such a folder.
    """
    label = path / DESCRIPTION
    found = opened.read_json(label)
    if found.get("format") != FORMAT:
        raise WeightsError(f"{label}: format={found.get('format')!r}: expected {FORMAT}")
    try:
        architecture = described.from_json(found["architecture"])
        own = _input(found["input"])
        layout = list(layout_of(architecture))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WeightsError(f"{label}: no description of a model: {error}") from None
    ignored: tuple[str, ...] = ()
    names = found.get("class_names")
    if not keep_head and architecture.text is None and architecture.image.variant.head:
        architecture, ignored, names = timm.without_head(architecture), (r"head\.(kernel|bias)",), None
        layout = list(layout_of(architecture))
    params = matching.read(opened.in_folder(path, [_WEIGHTS]), layout, f"the model of {label}", ignored)
    names = tuple(map(str, names)) if isinstance(names, list) else None
    return Checkpoint(spec, architecture, own, {"params": params, "state": {}}, names)


def _input(found: Mapping[str, Any]) -> ModelInput:
    own = dict(found)
    for name in ("image_size", "mean", "std"):
        own[name] = tuple(own[name])
    if own.get("tokenizer") is not None:
        own["tokenizer"] = Tokenizer(**own["tokenizer"])
    return ModelInput(**own)


def layout_of(architecture: described.Architecture) -> Iterator[Entry]:
    """How the arrays are named: as ours, with dots."""
    model = architecture.model()
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))["params"]
    for path in matching.paths(shapes):
        shape = tuple(matching.get(shapes, path).shape)
        yield entries.same(path, ".".join(path), shape)


def written(checkpoint: Checkpoint) -> Written:
    """A model as such a folder; there is none that it cannot hold."""
    description = {
        "format": FORMAT,
        "architecture": checkpoint.architecture.as_json(),
        "input": dataclasses.asdict(checkpoint.input),
        "class_names": list(checkpoint.class_names) if checkpoint.class_names else None,
    }
    return Written(
        matching.write(checkpoint.variables["params"], list(layout_of(checkpoint.architecture))),
        _WEIGHTS,
        {DESCRIPTION: description},
        {"format": "np"},
        "from classact.weights import opening\ncheckpoint = opening.read('safetensors:.')",
    )
