"""timm's `VisionTransformer`: a folder as timm saves for the hub, or a file of weights and a model's name.

Most of a model shows in its arrays' names and shapes. What does not (heads, activation, LayerNorm's
epsilon) is timm's default, or what it does for the names of some families.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from classact.models import transformer
from classact.models.variant import Variant
from classact.models.vit import Pool
from classact.weights import entries, matching
from classact.weights.architecture import Architecture, Checkpoint, ImageTower, input_of
from classact.weights.entries import BlockNames, Entry
from classact.weights.errors import WeightsError
from classact.weights.families import parts
from classact.weights.families.parts import Fields, Written
from classact.weights.files import opened, tensors
from classact.weights.files.tensors import TensorFile

POSITIONS = "antialiased"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_BLOCK = BlockNames(
    "norm1", ("attn.qkv",), "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", ("ls1.gamma", "ls2.gamma")
)
_POOLS: Mapping[str, Pool] = {"token": "cls", "avg": "mean", "map": "map"}
# Of these widths heads have more than 64 channels.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1536: 16, 1664: 16}
_NAME = re.compile(r"(vit|deit|deit3)_[a-z0-9_]+")
# Others whose arrays are called as those of a plain one, or whose heads are of another size.
_UNLIKE = re.compile(r"dinov3|mci|rope|relpos|rpn|resnet|18x2|radio|vit_base_patch16_gap_224")
# What SigLIP 2 and the shape-optimised SigLIP were trained with; timm says it of these.
_TANH = re.compile(
    r"vit_(so400m_patch16_siglip|giantopt_patch16_siglip|base_patch32_siglip|large_patch16_siglip(_gap)?_512).*"
)

# Mean and standard deviation where a folder's `config.json` does not say them: those that timm has under
# a name without a tag. The first pattern that fits counts; else both are 0.5.
_NORMALISATIONS = (
    (r"vit_large_patch14_clip_(224|336)", (parts.HALF, parts.HALF)),
    (r".*_clip_.*", (parts.CLIP_MEAN, parts.CLIP_STD)),
    (r".*(_tipsv2|_miil)", ((0.0,) * 3, (1.0,) * 3)),
    (
        r"deit.*|.*_dinov2|vit_(giant|huge)_.*_gap_.*|vit_small_patch8_224",
        (parts.IMAGENET_MEAN, parts.IMAGENET_STD),
    ),
)


@dataclasses.dataclass(frozen=True)
class Named:
    """What a model's name says that its arrays do not; see the module's docstring."""

    activation: str
    epsilon: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def named(name: str, label: str) -> Named:
    """Reads a model's name, without its tag.

    Raises:
        WeightsError: if it is no vision transformer of timm's, or one that is unlike those here.
    """
    base = name.partition(".")[0]
    if not _NAME.fullmatch(base) or _UNLIKE.search(base):
        raise WeightsError(f"{label}: model={name!r}: expected one of timm's plain vit_…, deit_… or deit3_…")
    clip = "_clip_" in base
    activation = "quick_gelu" if "quickgelu" in base else "gelu_tanh" if _TANH.match(base) else "gelu"
    mean, std = next(
        (found for pattern, found in _NORMALISATIONS if re.fullmatch(pattern, base)), (parts.HALF, parts.HALF)
    )
    return Named(activation, 1e-5 if clip else 1e-6, mean, std)


def heads_of(width: int) -> int:
    """How many heads timm's plain models of a width have."""
    return _HEADS.get(width, max(width // 64, 1))


def read(spec: str, path: pathlib.Path, model: str, keep_head: bool) -> Checkpoint:
    """Reads a folder or a file.

    Args:
        spec: what the user wrote, for messages.
        path: of either.
        model: timm's name of the model; "": the folder's `config.json` says it.
        keep_head: whether a classifier's head is read.

    Raises:
        WeightsError: if something is missing or damaged, or has no counterpart.
    """
    config = opened.read_json(path / "config.json") if (path / "config.json").exists() else {}
    name = model or str(config.get("architecture") or "")
    if not name:
        raise WeightsError(
            f"{spec}: no config.json says which model it is: say ?model=NAME, as timm calls it"
        )
    file = opened.in_folder(path, _WEIGHTS)
    own = parts.group(config, "pretrained_cfg", spec)
    architecture = describe(spec, file, name, config)
    head_names = (r"head\.(weight|bias)",)
    if not keep_head and architecture.image.variant.head:
        architecture = without_head(architecture)
    ignored = () if keep_head else head_names
    params = matching.read(file, list(layout(architecture)), f"timm's {name}", ignored)
    image_input = input_of(
        architecture,
        parts.interpolation(own.get("interpolation"), f"{spec}: interpolation"),
        parts.share(own.get("crop_pct"), 0.9, f"{spec}: crop_pct"),
    )
    names = config.get("label_names") or own.get("label_names")
    labels = tuple(map(str, names)) if isinstance(names, list) and keep_head else None
    if labels and len(labels) != architecture.image.outputs:
        labels = None
    return Checkpoint(spec, architecture, image_input, {"params": params, "state": {}}, labels)


def without_head(architecture: Architecture) -> Architecture:
    """The same model without its head: its outputs are the embedding."""
    image = architecture.image
    variant = dataclasses.replace(image.variant, head=False, head_bias=True)
    return Architecture(dataclasses.replace(image, outputs=image.size.width, variant=variant))


def describe(label: str, file: TensorFile, name: str, config: Mapping[str, Any]) -> Architecture:
    """Describes a model by its arrays, its name and its `config.json`.

    Args:
        label: for messages.
        file: with the arrays.
        name: of the model.
        config: of the folder; empty: there is none.

    Raises:
        WeightsError: if the arrays are not a vision transformer's, or a field has no counterpart.
    """
    said, found = named(name, label), file.tensors
    fields = Fields(f"{label}: config.json", parts.group(config, "model_args", label), {})
    fields.forbid(
        qk_norm=False,
        pool_include_prefix=False,
        final_norm=True,
        proj_bias=True,
        **dict.fromkeys(("norm_layer", "block_fn", "attn_layer", "mlp_layer", "embed_layer")),
    )
    kernel = found.get("patch_embed.proj.weight")
    if kernel is None or len(kernel.shape) != 4 or kernel.shape[2] != kernel.shape[3]:
        raise WeightsError(f"{label}: no patch_embed.proj.weight of square patches, as timm's vit_… have")
    width, channels, patch, _ = kernel.shape
    depth = len({key.split(".")[1] for key in found if key.startswith("blocks.")})
    hidden = found.get("blocks.0.mlp.fc1.weight")
    if hidden is None or len(hidden.shape) != 2:
        raise WeightsError(f"{label}: no blocks.0.mlp.fc1.weight: its blocks are not those of a plain ViT")
    heads = fields.whole("num_heads") if fields.get("num_heads") else heads_of(width)
    if width % heads:
        raise WeightsError(f"{label}: {heads} heads do not divide {width} channels")
    class_token = "cls_token" in found
    registers = tensors.length(file, "reg_token", 1) if "reg_token" in found else 0
    sides, class_position = _places(label, file, config, fields, patch, class_token)
    head = found.get("head.weight")
    pool = _pool(label, file, config)
    own = parts.group(config, "pretrained_cfg", label)
    variant = Variant(
        activation=(fields.get("act_layer") and fields.one_of("act_layer", _ACTIVATIONS)) or said.activation,
        epsilon=said.epsilon,
        qkv_bias="blocks.0.attn.qkv.bias" in found,
        # Where it is learned its start does not matter.
        layer_scale=1e-5 if "blocks.0.ls1.gamma" in found else 0.0,
        pre_norm="norm_pre.weight" in found,
        patch_bias="patch_embed.proj.bias" in found,
        class_token=None if class_token == (pool == "cls") else class_token,
        class_position=class_position or not class_token,
        registers=registers,
        norm="pooled" if "fc_norm.weight" in found else "tokens",
        head=head is not None,
        head_bias=head is None or "head.bias" in found,
        mean=parts.per_channel(own.get("mean"), said.mean, f"{label}: mean"),
        std=parts.per_channel(own.get("std"), said.std, f"{label}: std"),
    )
    size = transformer.Size(width, depth, hidden.shape[0], heads)
    outputs = tensors.length(file, "head.weight", 0) if head is not None else width
    return Architecture(ImageTower(size, patch, sides, outputs, pool, channels, variant))


_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}


def _places(
    label: str, file: TensorFile, config: Mapping[str, Any], fields: Fields, patch: int, class_token: bool
) -> tuple[tuple[int, int], bool]:
    """The image size that the positions are for, and whether the class token has one."""
    positions = file.tensors.get("pos_embed")
    if positions is None or len(positions.shape) != 3:
        raise WeightsError(f"{label}: no pos_embed: only learned positions of single places are read")
    number = positions.shape[1]
    size = parts.group(config, "pretrained_cfg", label).get("input_size")
    asked = fields.sides("img_size") if fields.get("img_size") else None
    if asked is None and isinstance(size, list) and len(size) == 3:
        asked = Fields(f"{label}: config.json: pretrained_cfg", {"input_size": size[1:]}, {}).sides(
            "input_size"
        )
    for count in (number, number - 1) if class_token else (number,):
        side = math.isqrt(count)
        square = (side * patch, side * patch) if side * side == count else None
        if asked is not None and (asked[0] // patch) * (asked[1] // patch) == count:
            return (asked[0] // patch * patch, asked[1] // patch * patch), count != number
        if square is not None:
            return square, count != number
    raise WeightsError(
        f"{label}: pos_embed has {number} places, which are no square of patches (and class token)"
    )


def _pool(label: str, file: TensorFile, config: Mapping[str, Any]) -> Pool:
    found = file.tensors
    arguments = parts.group(config, "model_args", label)
    said = arguments.get("global_pool") or config.get("global_pool")
    if said:
        return Fields(f"{label}: config.json", {"global_pool": said}, {}).one_of("global_pool", _POOLS)
    if "attn_pool.latent" in found:
        return "map"
    return "mean" if "fc_norm.weight" in found or "cls_token" not in found else "cls"


def layout(architecture: Architecture, prefix: str = "", ours: entries.Path = ()) -> Iterator[Entry]:
    """How the arrays are named; `prefix` is what their names begin with, `ours` where the tower is."""
    image = architecture.image
    width, variant = image.size.width, image.variant
    if image.class_token:
        yield entries.same((*ours, "cls"), f"{prefix}cls_token", (1, 1, width))
    if variant.registers:
        yield entries.same((*ours, "registers"), f"{prefix}reg_token", (1, variant.registers, width))
    rows, columns = image.grid
    count = rows * columns + (image.class_token and variant.class_position)
    yield entries.same((*ours, "positions"), f"{prefix}pos_embed", (1, count, width))
    place = (*ours, "patch_embedding")
    layer = f"{prefix}patch_embed.proj"
    yield from entries.patches(layer, width, image.patch_size, image.channels, variant.patch_bias, place)
    if variant.pre_norm:
        yield from entries.norm((*ours, "pre_norm"), f"{prefix}norm_pre", width)
    yield from entries.blocks(f"{prefix}blocks.{{}}.", _BLOCK, image.size, variant.style, ours)
    last = "fc_norm" if variant.norm == "pooled" else "norm"
    yield from entries.norm((*ours, "norm"), f"{prefix}{last}", width)
    if image.pool == "map":
        yield from _attention_pool(image.size, f"{prefix}attn_pool.", (*ours, "pool"))
    if variant.head:
        yield from entries.linear((*ours, "head"), f"{prefix}head", (width, image.outputs), variant.head_bias)


def _attention_pool(size: transformer.Size, prefix: str, ours: entries.Path) -> Iterator[Entry]:
    width = size.width
    yield entries.same((*ours, "probe"), f"{prefix}latent", (1, 1, width))
    yield from entries.linear((*ours, "query"), f"{prefix}q", (width, width))
    yield from entries.linear((*ours, "key_value"), f"{prefix}kv", (width, 2 * width))
    yield from entries.linear((*ours, "out"), f"{prefix}proj", (width, width))
    yield from entries.norm((*ours, "norm"), f"{prefix}norm", width)
    yield from entries.linear((*ours, "mlp_in"), f"{prefix}mlp.fc1", (width, size.mlp))
    yield from entries.linear((*ours, "mlp_out"), f"{prefix}mlp.fc2", (size.mlp, width))


def written(checkpoint: Checkpoint) -> Written:
    """A model as a folder that timm loads: a `vit_base_patch16_224` with arguments.

    Raises:
        WeightsError: if it is a model of images and texts, or one that timm has no arguments for.
    """
    architecture = checkpoint.architecture
    image, own = architecture.image, architecture.image.variant
    parts.needs(
        checkpoint,
        "timm",
        texts=(False, architecture.text is not None),
        patch_bias=(not own.pre_norm, own.patch_bias),
        head_bias=(True, own.head_bias),
        positions=("learned", own.positions),
        class_position=(True, own.class_position or not image.class_token or own.registers > 0),
        registers=(own.registers if not own.class_position or not image.class_token else 0, own.registers),
        epsilon=(1e-6, own.epsilon),
    )
    side, input_ = image.image_size, checkpoint.input
    pools = {ours: theirs for theirs, ours in _POOLS.items()}
    arguments = {
        "img_size": list(side), "patch_size": image.patch_size, "in_chans": image.channels,
        "embed_dim": image.size.width, "depth": image.size.depth, "num_heads": image.size.heads,
        "mlp_ratio": image.size.mlp / image.size.width, "qkv_bias": own.qkv_bias,
        "init_values": own.layer_scale or None, "class_token": image.class_token,
        "no_embed_class": not own.class_position, "reg_tokens": own.registers, "pre_norm": own.pre_norm,
        "fc_norm": own.norm == "pooled", "global_pool": pools[image.pool], "act_layer": own.activation,
    }  # fmt: skip
    classes = image.outputs if own.head else 0
    config: dict[str, Any] = {
        "architecture": "vit_base_patch16_224",
        "num_classes": classes,
        "num_features": image.size.width,
        "global_pool": pools[image.pool],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [image.channels, *side],
            "num_classes": classes,
            "mean": list(input_.mean),
            "std": list(input_.std),
            "interpolation": input_.interpolation,
            "crop_pct": input_.crop or 1.0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if checkpoint.class_names:
        config["label_names"] = list(checkpoint.class_names)
    return Written(
        matching.write(checkpoint.variables["params"], list(layout(architecture))),
        "model.safetensors",
        {"config.json": config},
        {"format": "pt"},
        "import timm\nmodel = timm.create_model('local-dir:.', pretrained=True)",
    )
