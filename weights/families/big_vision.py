"""big_vision's npz files: ViT (AugReg's of the older layout, too) and SigLIP.

The number of heads is in the shapes. Activation (GELU by tanh) and epsilon are Flax's.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from classact.models import transformer
from classact.models.variant import Variant
from classact.models.vit import Pool
from classact.weights import entries, matching
from classact.weights.architecture import (
    Architecture,
    Checkpoint,
    ImageTower,
    TextTower,
    Tokenizer,
    input_of,
)
from classact.weights.entries import Entry, Path
from classact.weights.errors import WeightsError
from classact.weights.families import parts, timm
from classact.weights.families.parts import Written
from classact.weights.files import opened
from classact.weights.files.tensors import Renamed, TensorFile, Unstacked

POSITIONS = "corners"
# Where the older layout has the positions, of class token and patches together.
_OLD = "Transformer/posembed_input/pos_embedding"
_NEW = "pos_embedding"


@dataclasses.dataclass(frozen=True)
class _Names:
    """What differs between the two layouts."""

    norms: tuple[str, str] = ("LayerNorm_0", "LayerNorm_1")
    attention: str = "MultiHeadDotProductAttention_0"
    mlp: str = "MlpBlock_0"


_NEWER = _Names()
_OLDER = _Names(("LayerNorm_0", "LayerNorm_2"), "MultiHeadDotProductAttention_1", "MlpBlock_3")


def read(spec: str, path: pathlib.Path, keep_head: bool) -> Checkpoint:
    """Reads a file.

    Args:
        spec: what the user wrote, for messages.
        path: of the file.
        keep_head: whether a classifier's head is read.

    Raises:
        WeightsError: if it is missing or damaged, or has no counterpart.
    """
    file: TensorFile = Unstacked(opened.opened(path))
    if any(name.startswith("params/") for name in file.tensors):
        file = Renamed(file, "params/")
    texts = any(name.startswith("txt/") for name in file.tensors)
    place = "img/" if texts else ""
    image, names = _image(spec, Renamed(file, place) if place else file)
    architecture = Architecture(image, _text(spec, file) if texts else None)
    bias = "b" in file.tensors
    ignored: tuple[str, ...] = ()
    if texts:
        architecture = dataclasses.replace(architecture, max_scale=math.inf)
    elif image.variant.head and not keep_head:
        architecture, ignored = timm.without_head(architecture), ("head/(kernel|bias)",)
    layout = list(layout_of(architecture, names, bias))
    params = matching.read(file, layout, "a ViT or SigLIP of big_vision", ignored)
    if texts and not bias:
        params["bias"] = parts.no_bias()
    tokenizer = Tokenizer("sentencepiece", "", 1) if texts else None
    own = input_of(architecture, "bilinear", 0.0, tokenizer)
    return Checkpoint(spec, architecture, own, {"params": params, "state": {}})


def _shape(file: TensorFile, name: str, axes: int, label: str) -> tuple[int, ...]:
    tensor = file.tensors.get(name)
    if tensor is None or len(tensor.shape) != axes:
        found = "there is none" if tensor is None else f"it has shape {list(tensor.shape)}"
        raise WeightsError(f"{label}: {name} of {axes} axes is expected, as in big_vision's ViT: {found}")
    return tensor.shape


def _size(file: TensorFile, encoder: str, label: str) -> tuple[transformer.Size, _Names]:
    """Reads the size of a tower off its shapes."""
    first = f"{encoder}/encoderblock_0"
    older = f"{first}/{_OLDER.attention}/query/kernel" in file.tensors
    names = _OLDER if older else _NEWER
    width, heads, _ = _shape(file, f"{first}/{names.attention}/query/kernel", 3, label)
    mlp = _shape(file, f"{first}/{names.mlp}/Dense_0/kernel", 2, label)[1]
    begin = f"{encoder}/encoderblock_"
    depth = len({name.split("/")[begin.count("/")] for name in file.tensors if name.startswith(begin)})
    return transformer.Size(width, depth, mlp, heads), names


def _image(label: str, file: TensorFile) -> tuple[ImageTower, _Names]:
    patch, other, channels, _ = _shape(file, "embedding/kernel", 4, label)
    if patch != other:
        raise WeightsError(f"{label}: patches of {patch}×{other} pixels: expected square ones")
    size, names = _size(file, "Transformer", label)
    class_token = "cls" in file.tensors
    older = _OLD in file.tensors
    if older or _NEW in file.tensors:
        number = _shape(file, _OLD if older else _NEW, 3, label)[1]
        side = math.isqrt(number - (older and class_token))
        if side * side != number - (older and class_token):
            raise WeightsError(f"{label}: {number} positions, which are no square of patches")
    else:
        raise WeightsError(f"{label}: no position embeddings: those of sincos2d do not say the image size")
    head = file.tensors.get("head/kernel")
    pool: Pool = "map" if "MAPHead_0/probe" in file.tensors else "cls" if class_token else "mean"
    half = (0.5,) * channels
    variant = Variant(class_position=older or not class_token, head=head is not None, mean=half, std=half)
    outputs = _shape(file, "head/kernel", 2, label)[1] if head else size.width
    return ImageTower(size, patch, (side * patch, side * patch), outputs, pool, channels, variant), names


def _text(label: str, file: TensorFile) -> TextTower:
    size, _ = _size(Renamed(file, "txt/"), "Encoder_0", label)
    vocabulary = _shape(file, "txt/Embed_0/embedding", 2, label)[0]
    length = _shape(file, "txt/pos_embedding", 3, label)[1]
    return TextTower(size, vocabulary, length, 1, causal=False, pool="last", projection_bias=True)


def layout_of(architecture: Architecture, names: _Names, bias: bool) -> Iterator[Entry]:
    """How the arrays are named.

    Args:
        architecture: of the model.
        names: of which layout.
        bias: whether there is one of the similarities.
    """
    if architecture.text is None:
        yield from _image_layout(architecture.image, names, "", ())
        return
    yield from _image_layout(architecture.image, names, "img/", ("image",))
    yield from _text_layout(architecture.text, architecture.image.outputs)
    yield entries.reshaped(("log_scale",), (), "t", (1,))
    if bias:
        yield entries.reshaped(("bias",), (), "b", (1,))


def _image_layout(image: ImageTower, names: _Names, place: str, ours: Path) -> Iterator[Entry]:
    width, patch = image.size.width, image.patch_size
    kernel = (patch, patch, image.channels, width)
    flat = (patch * patch * image.channels, width)
    own = (*ours, "patch_embedding")
    yield entries.reshaped((*own, "kernel"), flat, f"{place}embedding/kernel", kernel)
    yield entries.same((*own, "bias"), f"{place}embedding/bias", (width,))
    rows, columns = image.grid
    together = image.class_token and image.variant.class_position
    if image.class_token:
        yield entries.same((*ours, "cls"), f"{place}cls", (1, 1, width))
    positions = f"{place}{_OLD if names is _OLDER else _NEW}"
    yield entries.same((*ours, "positions"), positions, (1, rows * columns + together, width))
    yield from _blocks(f"{place}Transformer", image.size, names, ours)
    yield from _norm((*ours, "norm"), f"{place}Transformer/encoder_norm", width)
    if image.pool == "map":
        yield from _pool(image.size, f"{place}MAPHead_0", (*ours, "pool"))
    if image.variant.head:
        yield from _dense((*ours, "head"), f"{place}head", (width, image.outputs))


def _text_layout(text: TextTower, outputs: int) -> Iterator[Entry]:
    width, ours = text.size.width, ("text",)
    yield entries.same((*ours, "tokens", "embedding"), "txt/Embed_0/embedding", (text.vocab_size, width))
    flat = (text.context_length, width)
    yield entries.reshaped((*ours, "positions"), flat, "txt/pos_embedding", (1, *flat))
    yield from _blocks("txt/Encoder_0", text.size, _NEWER, ours)
    yield from _norm((*ours, "norm"), "txt/Encoder_0/encoder_norm", width)
    yield from _dense((*ours, "projection"), "txt/head", (width, outputs))


def _blocks(encoder: str, size: transformer.Size, names: _Names, ours: Path) -> Iterator[Entry]:
    width = size.width
    for i in range(size.depth):
        place, block = f"{encoder}/encoderblock_{i}", (*ours, f"block_{i}")
        yield from _norm((*block, "norm_attention"), f"{place}/{names.norms[0]}", width)
        attention = f"{place}/{names.attention}"
        yield from _heads((*block, "attention", "qkv"), attention, ("query", "key", "value"), size)
        yield from _out((*block, "attention", "out"), f"{attention}/out", size)
        yield from _norm((*block, "norm_mlp"), f"{place}/{names.norms[1]}", width)
        yield from _dense((*block, "mlp_in"), f"{place}/{names.mlp}/Dense_0", (width, size.mlp))
        yield from _dense((*block, "mlp_out"), f"{place}/{names.mlp}/Dense_1", (size.mlp, width))


def _pool(size: transformer.Size, place: str, ours: Path) -> Iterator[Entry]:
    width, attention = size.width, f"{place}/{_NEWER.attention}"
    yield entries.same((*ours, "probe"), f"{place}/probe", (1, 1, width))
    yield from _heads((*ours, "query"), attention, ("query",), size)
    yield from _heads((*ours, "key_value"), attention, ("key", "value"), size)
    yield from _out((*ours, "out"), f"{attention}/out", size)
    yield from _norm((*ours, "norm"), f"{place}/LayerNorm_0", width)
    yield from _dense((*ours, "mlp_in"), f"{place}/MlpBlock_0/Dense_0", (width, size.mlp))
    yield from _dense((*ours, "mlp_out"), f"{place}/MlpBlock_0/Dense_1", (size.mlp, width))


def _heads(ours: Path, attention: str, layers: Sequence[str], size: transformer.Size) -> Iterator[Entry]:
    """Layers whose outputs have an axis of heads, side by side in one of ours."""
    width, count = size.width, len(layers)
    kernel, bias = (width, size.heads, width // size.heads), (size.heads, width // size.heads)
    yield Entry(
        ((*ours, "kernel"),),
        tuple((f"{attention}/{layer}/kernel", kernel) for layer in layers),
        lambda a: [np.concatenate([each.reshape(width, width) for each in a], axis=1)],
        lambda a: [part.reshape(kernel) for part in np.split(a[0], count, axis=1)],
    )
    yield Entry(
        ((*ours, "bias"),),
        tuple((f"{attention}/{layer}/bias", bias) for layer in layers),
        lambda a: [np.concatenate([each.reshape(width) for each in a])],
        lambda a: [part.reshape(bias) for part in np.split(a[0], count)],
    )


def _out(ours: Path, layer: str, size: transformer.Size) -> Iterator[Entry]:
    shape, heads = (size.width, size.width), (size.heads, size.width // size.heads, size.width)
    yield entries.reshaped((*ours, "kernel"), shape, f"{layer}/kernel", heads)
    yield entries.same((*ours, "bias"), f"{layer}/bias", shape[1:])


def _norm(ours: Path, layer: str, width: int) -> Iterator[Entry]:
    yield entries.same((*ours, "scale"), f"{layer}/scale", (width,))
    yield entries.same((*ours, "bias"), f"{layer}/bias", (width,))


def _dense(ours: Path, layer: str, shape: tuple[int, int]) -> Iterator[Entry]:
    yield entries.same((*ours, "kernel"), f"{layer}/kernel", shape)
    yield entries.same((*ours, "bias"), f"{layer}/bias", shape[1:])


def written(checkpoint: Checkpoint) -> Written:
    """A model as an npz file that big_vision's `vit.load` and `two_towers.load` read.

    Raises:
        WeightsError: if big_vision has no such model.
    """
    architecture = checkpoint.architecture
    image, text, own = architecture.image, architecture.text, architecture.image.variant
    wanted: dict[str, tuple[Any, Any]] = {
        "activation": ("gelu_tanh", own.activation),
        "epsilon": (1e-6, own.epsilon),
        "qkv_bias": (True, own.qkv_bias),
        "layer_scale": (0.0, own.layer_scale),
        "pre_norm": (False, own.pre_norm),
        "patch_bias": (True, own.patch_bias),
        "class_token": (image.pool == "cls", image.class_token),
        "registers": (0, own.registers),
        "positions": ("learned", own.positions),
        "norm": ("tokens", own.norm),
        "head_bias": (True, own.head_bias),
        "mean": ((0.5,) * image.channels, checkpoint.input.mean),
        "std": ((0.5,) * image.channels, checkpoint.input.std),
        "image_height": (image.image_size[1], image.image_size[0]),
    }
    if text is not None:
        wanted |= {
            "text_style": (transformer.PAPER, text.style),
            "causal": (False, text.causal),
            "text_pool": ("last", text.pool),
            "projection_bias": (True, text.projection_bias),
            # Its two towers add positions to the patches alone.
            "class_position": (False, image.class_token and own.class_position),
        }
    parts.needs(checkpoint, "big_vision", **wanted)
    older = image.class_token and own.class_position
    layout = list(layout_of(architecture, _OLDER if older else _NEWER, bias=True))
    arrays = matching.write(checkpoint.variables["params"], layout)
    if not older:
        arrays = {f"params/{name}": array for name, array in arrays.items()}
    module = "proj.image_text.two_towers" if text else "vit"
    return Written(
        arrays,
        "checkpoint.npz",
        {},
        {},
        f"config.model_name = '{module}'\nconfig.model_init = 'checkpoint.npz'",
    )
