"""Reads a checkpoint of another tool by its spec.

| spec | what it holds |
|---|---|
| `hf:FOLDER` | transformers' CLIP, SigLIP, ViT, DINOv2 |
| `open_clip:PATH?model=NAME_OR_JSON` | open_clip's CLIP and SigLIP |
| `timm:PATH?model=NAME` | timm's vision transformers |
| `big_vision:PATH.npz` | big_vision's and AugReg's ViT, SigLIP |
| `safetensors:FOLDER` | what `classact export --format=safetensors` has written |

Options of all: `head=drop` leaves a classifier's head out (else `keep`), `image_size=N` makes
it one for images of N × N pixels, its positions interpolated. Two towers take `tokenizer=SPEC`,
for those whose files do not say which (`data.tokenizer` has the specs).
"""

import difflib
import pathlib
import re

from classact.weights import positions
from classact.weights.architecture import Checkpoint
from classact.weights.errors import WeightsError
from classact.weights.families import big_vision, hugging_face, open_clip, plain, timm

TOOLS = ("hf", "open_clip", "timm", "big_vision", "safetensors")
_SPEC = re.compile(r"(?P<tool>[a-z_]+):(?P<path>[^?]*)(\?(?P<options>.*))?")
_OPTIONS = {
    "hf": ("head", "image_size", "tokenizer"),
    "open_clip": ("image_size", "model", "tokenizer"),
    "timm": ("head", "image_size", "model"),
    "big_vision": ("head", "image_size", "tokenizer"),
    "safetensors": ("head", "image_size", "tokenizer"),
}


def is_outside(spec: str) -> bool:
    """Whether a spec names a checkpoint of another tool; else it is a run directory of ours."""
    return spec.partition(":")[0] in TOOLS and ":" in spec


def path_of(spec: str) -> pathlib.Path:
    """The file or folder that a spec names; WeightsError if it is no such spec, or nothing is there."""
    return _split(spec)[1]


def options_of(spec: str) -> dict[str, str]:
    """The options that a spec has; WeightsError as `path_of`."""
    return _split(spec)[2]


def at_side(spec: str, side: int) -> str:
    """The spec of the same checkpoint for images of `side` × `side` pixels, unless it says a size itself."""
    if "image_size" in options_of(spec):
        return spec
    return f"{spec}{'&' if '?' in spec else '?'}image_size={side}"


def read(spec: str) -> Checkpoint:
    """Reads a checkpoint; names, shapes and dtypes are checked before any array is read.

    Args:
        spec: see the module's docstring.

    Returns:
        Its model, what that takes, and its weights, float32. Without a head the logits are the
        embedding.

    Raises:
        WeightsError: one line: what is missing, damaged, unknown, or has no counterpart.
    """
    try:
        return _read(spec)
    except WeightsError:
        raise
    # What a model's options refuse.
    except ValueError as error:
        raise WeightsError(f"{spec}: {error}") from None


def _read(spec: str) -> Checkpoint:
    tool, path, options = _split(spec)
    keep_head = _one_of(spec, options, "head", "keep", ("keep", "drop")) == "keep"
    side = options.get("image_size")
    if side is not None and (not side.isdecimal() or int(side) < 1):
        raise WeightsError(f"{spec}: image_size={side}: expected a number of pixels")
    model = options.get("model", "")
    if tool == "hf":
        found = hugging_face.read(spec, path, keep_head)
        method = hugging_face.positions_of(found)
    elif tool == "open_clip":
        found, method = open_clip.read(spec, path, model), open_clip.POSITIONS
    elif tool == "timm":
        found, method = timm.read(spec, path, model, keep_head), timm.POSITIONS
    elif tool == "big_vision":
        found, method = big_vision.read(spec, path, keep_head), big_vision.POSITIONS
    else:
        found, method = plain.read(spec, path, keep_head), plain.POSITIONS
    return positions.at_size(found, (int(side), int(side)), method) if side else found


def _split(spec: str) -> tuple[str, pathlib.Path, dict[str, str]]:
    parts = _SPEC.fullmatch(spec)
    if parts is None or parts["tool"] not in TOOLS:
        raise WeightsError(f"checkpoint {spec!r}: expected {', '.join(f'{tool}:PATH' for tool in TOOLS)}")
    tool = parts["tool"]
    if not parts["path"]:
        raise WeightsError(f"checkpoint {spec!r}: a path is missing behind {tool}:")
    options = {}
    for pair in (parts["options"] or "").split("&") if parts["options"] else ():
        name, equals, value = pair.partition("=")
        accepted = _OPTIONS[tool]
        if name not in accepted or not equals:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f"did you mean {near[0]}? Else " if near else ""
            raise WeightsError(
                f"{spec}: unknown option {name!r}: {hint}expected one of {', '.join(accepted)}"
            )
        options[name] = value
    path = pathlib.Path(parts["path"])
    if not path.exists():
        raise WeightsError(f"{spec}: {path}: no such file or folder")
    return tool, path, options


def _one_of(spec: str, options: dict[str, str], name: str, default: str, accepted: tuple[str, ...]) -> str:
    value = options.get(name, default)
    if value not in accepted:
        raise WeightsError(f"{spec}: {name}={value}: expected {' or '.join(accepted)}")
    return value
