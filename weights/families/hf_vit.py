"""Hugging Face's `ViTForImageClassification`, `Dinov2Model` and `Dinov2WithRegistersModel`."""

from collections.abc import Iterator, Mapping
from typing import Any

from classact.models import transformer
from classact.models.variant import Variant
from classact.weights import entries
from classact.weights.architecture import Architecture, Checkpoint, ImageTower
from classact.weights.entries import BlockNames, Entry
from classact.weights.families import parts
from classact.weights.families.hf_clip import ACTIVATIONS
from classact.weights.families.parts import Fields

_QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
_VIT = BlockNames(
    "layernorm_before",
    _QKV,
    "attention.output.dense",
    "layernorm_after",
    "intermediate.dense",
    "output.dense",
)
_DINO = BlockNames(
    "norm1", _QKV, "attention.output.dense", "norm2", "mlp.fc1", "mlp.fc2",
    ("layer_scale1.lambda1", "layer_scale2.lambda1"),
)  # fmt: skip
# Configurations leave out what is the library's default.
_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_channels": 3,
             "num_attention_heads": 12, "image_size": 224, "patch_size": 16, "hidden_act": "gelu",
             "layer_norm_eps": 1e-12, "qkv_bias": True}  # fmt: skip
_DINO_DEFAULTS = {
    **_DEFAULTS,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "mlp_ratio": 4,
    "layerscale_value": 1.0,
}
_REGISTERS = {"dinov2": 0, "dinov2_with_registers": 4}
MODELS = ("vit", *_REGISTERS)
IGNORED = (r"(dinov2\.|dinov2_with_registers\.)?embeddings\.mask_token", r"pooler\.dense\.(weight|bias)")


def describe(
    label: str,
    found: Mapping[str, Any],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    classes: int,
) -> Architecture:
    """Describes a model by its `config.json`.

    Args:
        label: for messages.
        found: the configuration.
        mean: of the images.
        std: likewise.
        classes: outputs of its head; 0: it has none.

    Raises:
        WeightsError: for a field that has no counterpart.
    """
    dino = found["model_type"] in _REGISTERS
    config = Fields(label, found, _DINO_DEFAULTS if dino else _DEFAULTS)
    mlp = config.whole("intermediate_size")
    if dino:
        config.forbid(use_swiglu_ffn=False)
        mlp = int(config.whole("hidden_size") * config.number("mlp_ratio"))
    size = parts.sized(config, "hidden_size", "num_hidden_layers", mlp, "num_attention_heads")
    variant = Variant(
        activation=config.one_of("hidden_act", ACTIVATIONS),
        epsilon=config.number("layer_norm_eps"),
        qkv_bias=config.one_of("qkv_bias", {True: True, False: False}),
        layer_scale=config.number("layerscale_value") if dino else 0.0,
        registers=int(config.get("num_register_tokens", _REGISTERS[found["model_type"]])) if dino else 0,
        head=bool(classes),
        mean=mean,
        std=std,
    )
    sides = config.sides("image_size")
    image = ImageTower(
        size,
        config.whole("patch_size"),
        sides,
        classes or size.width,
        "cls",
        config.whole("num_channels"),
        variant,
    )
    return Architecture(image)


def layout(architecture: Architecture, prefix: str) -> Iterator[Entry]:
    """How the arrays are named; `prefix` is what those of the tower begin with."""
    image = architecture.image
    width, variant = image.size.width, image.variant
    place, dino = f"{prefix}embeddings", is_dino(architecture)
    yield entries.same(("cls",), f"{place}.cls_token", (1, 1, width))
    rows, columns = image.grid
    yield entries.same(("positions",), f"{place}.position_embeddings", (1, rows * columns + 1, width))
    if variant.registers:
        yield entries.same(("registers",), f"{place}.register_tokens", (1, variant.registers, width))
    yield from entries.patches(
        f"{place}.patch_embeddings.projection", width, image.patch_size, image.channels
    )
    names = _DINO if dino else _VIT
    yield from entries.blocks(f"{prefix}encoder.layer.{{}}.", names, image.size, variant.style)
    yield from entries.norm(("norm",), f"{prefix}layernorm", width)
    if variant.head:
        yield from entries.linear(("head",), "classifier", (width, image.outputs))


def is_dino(architecture: Architecture) -> bool:
    """Whether a model is written as DINOv2; else it is as ViT."""
    return bool(architecture.image.variant.layer_scale)


def check_written(checkpoint: Checkpoint) -> None:
    """Checks that one of the two holds a model; raises WeightsError if neither does."""
    image, own = checkpoint.architecture.image, checkpoint.architecture.image.variant
    dino = is_dino(checkpoint.architecture)
    parts.needs(
        checkpoint,
        "Dinov2Model" if dino else "ViTForImageClassification",
        pool=("cls", image.pool),
        pre_norm=(False, own.pre_norm),
        patch_bias=(True, own.patch_bias),
        head=(not dino, own.head),
        head_bias=(True, own.head_bias),
        class_position=(True, own.class_position),
        positions=("learned", own.positions),
        registers=(0, 0 if dino else own.registers),
        image_height=(image.image_size[1], image.image_size[0]),
    )


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The `config.json` of a model that is written."""
    architecture = checkpoint.architecture
    image, own = architecture.image, architecture.image.variant
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == own.activation)
    found: dict[str, Any] = {
        "hidden_size": image.size.width,
        "num_hidden_layers": image.size.depth,
        "num_attention_heads": image.size.heads,
        "hidden_act": activation,
        "layer_norm_eps": own.epsilon,
        "qkv_bias": own.qkv_bias,
        "image_size": image.image_size[0],
        "patch_size": image.patch_size,
        "num_channels": image.channels,
    }
    if is_dino(architecture):
        return {**found, **_dino_fields(image.size, own)}
    names = checkpoint.class_names or tuple(f"class {i}" for i in range(image.outputs))
    return {
        **found,
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "intermediate_size": image.size.mlp,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _dino_fields(size: transformer.Size, own: Variant) -> dict[str, Any]:
    kind = "dinov2_with_registers" if own.registers else "dinov2"
    return {
        "architectures": ["Dinov2WithRegistersModel" if own.registers else "Dinov2Model"],
        "model_type": kind,
        "mlp_ratio": size.mlp / size.width if size.mlp % size.width else size.mlp // size.width,
        "layerscale_value": own.layer_scale,
        "use_swiglu_ffn": False,
        **({"num_register_tokens": own.registers} if own.registers else {}),
    }
