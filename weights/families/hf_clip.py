"""Hugging Face's CLIP and SigLIP: `CLIPModel`, `SiglipModel` (SigLIP 2 of fixed resolution too)."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from classact.models import transformer
from classact.models.variant import Variant
from classact.weights import entries
from classact.weights.architecture import Architecture, Checkpoint, ImageTower, TextTower
from classact.weights.entries import BlockNames, Entry
from classact.weights.families import parts
from classact.weights.families.parts import Fields

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
_BLOCK = BlockNames(
    "layer_norm1",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.out_proj",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
)
# Configurations leave out what is the library's default.
_CLIP_TEXT = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
              "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
              "layer_norm_eps": 1e-5, "eos_token_id": 49407}  # fmt: skip
_CLIP_VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_channels": 3,
                "num_attention_heads": 12, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
                "layer_norm_eps": 1e-5}  # fmt: skip
_SIGLIP = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_SIGLIP_TEXT = {**_CLIP_TEXT, **_SIGLIP, "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 3072,
                "num_attention_heads": 12, "max_position_embeddings": 64}  # fmt: skip
_SIGLIP_VISION = {**_CLIP_VISION, **_SIGLIP, "patch_size": 16, "vision_use_head": True}
# The end of a text in configurations from before June 2023, which the library then takes for the largest id.
_LEGACY_END = 2
IGNORED = (r".*\.position_ids",)


def clip(
    label: str, found: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> Architecture:
    """Describes a `CLIPModel` by its `config.json`.

    Raises:
        WeightsError: for a field that has no counterpart.
    """
    config = Fields(label, found, {"projection_dim": 512})
    vision, texts = config.group("vision_config", _CLIP_VISION), config.group("text_config", _CLIP_TEXT)
    style = _style(vision)
    image = ImageTower(
        _size(vision),
        vision.whole("patch_size"),
        vision.sides("image_size"),
        config.whole("projection_dim"),
        "cls",
        vision.whole("num_channels"),
        Variant(
            activation=style.activation, epsilon=style.epsilon, pre_norm=True, patch_bias=False,
            head_bias=False, mean=mean, std=std,
        ),
    )  # fmt: skip
    vocabulary, end = texts.whole("vocab_size"), texts.whole("eos_token_id", 0)
    text = TextTower(
        _size(texts),
        vocabulary,
        texts.whole("max_position_embeddings"),
        vocabulary - 1 if end == _LEGACY_END else end,
        style=_style(texts),
    )
    return Architecture(image, text)


def siglip(
    label: str, found: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> Architecture:
    """Describes a `SiglipModel` by its `config.json`; the raises of `clip`."""
    config = Fields(label, found, {})
    vision, texts = config.group("vision_config", _SIGLIP_VISION), config.group("text_config", _SIGLIP_TEXT)
    vision.forbid(vision_use_head=True)
    style, size = _style(vision), _size(vision)
    image = ImageTower(
        size,
        vision.whole("patch_size"),
        vision.sides("image_size"),
        size.width,
        "map",
        vision.whole("num_channels"),
        Variant(activation=style.activation, epsilon=style.epsilon, head=False, mean=mean, std=std),
    )
    own = _size(texts)
    if (texts.get("projection_size") or own.width) != size.width:
        texts.refuse("projection_size", f"the images' {size.width}")
    text = TextTower(
        own,
        texts.whole("vocab_size"),
        texts.whole("max_position_embeddings"),
        # What fills a text up, for whoever makes tokens; the tower reads the last place.
        1,
        causal=False,
        pool="last",
        projection_bias=True,
        style=_style(texts),
    )
    return Architecture(image, text, math.inf)


def _style(fields: Fields) -> transformer.Style:
    return transformer.Style(fields.one_of("hidden_act", ACTIVATIONS), fields.number("layer_norm_eps"))


def _size(fields: Fields) -> transformer.Size:
    mlp = fields.whole("intermediate_size")
    return parts.sized(fields, "hidden_size", "num_hidden_layers", mlp, "num_attention_heads")


def layout(architecture: Architecture) -> Iterator[Entry]:
    """How the arrays of either model are named."""
    image, text = architecture.image, architecture.text
    assert text is not None
    width, siglips = image.size.width, image.pool == "map"
    place, images = "vision_model.embeddings", ("image",)
    rows, columns = image.grid
    count = rows * columns + image.class_token
    if image.class_token:
        yield entries.reshaped(("image", "cls"), (1, 1, width), f"{place}.class_embedding", (width,))
    positions = f"{place}.position_embedding.weight"
    yield entries.reshaped(("image", "positions"), (1, count, width), positions, (count, width))
    yield from entries.patches(
        f"{place}.patch_embedding", width, image.patch_size, image.channels, image.variant.patch_bias,
        ("image", "patch_embedding"),
    )  # fmt: skip
    if image.variant.pre_norm:
        # So misspelt there.
        yield from entries.norm(("image", "pre_norm"), "vision_model.pre_layrnorm", width)
    yield from entries.blocks(
        "vision_model.encoder.layers.{}.", _BLOCK, image.size, image.variant.style, images
    )
    yield from entries.norm(("image", "norm"), "vision_model.post_layernorm", width)
    if siglips:
        yield from _pool(image.size)
    else:
        yield from entries.linear(("image", "head"), "visual_projection", (width, image.outputs), bias=False)
    yield from _texts(text, image.outputs, "text_model.head" if siglips else "text_projection")
    one = (1,) if siglips else ()
    yield entries.reshaped(("log_scale",), (), "logit_scale", one)
    if siglips:
        yield entries.reshaped(("bias",), (), "logit_bias", one)


def _pool(size: transformer.Size) -> Iterator[Entry]:
    width, place, ours = size.width, "vision_model.head", ("image", "pool")
    yield entries.same((*ours, "probe"), f"{place}.probe", (1, 1, width))
    yield from entries.split((*ours, "query"), (*ours, "key_value"), f"{place}.attention.in_proj", width)
    yield from entries.linear((*ours, "out"), f"{place}.attention.out_proj", (width, width))
    yield from entries.norm((*ours, "norm"), f"{place}.layernorm", width)
    yield from entries.linear((*ours, "mlp_in"), f"{place}.mlp.fc1", (width, size.mlp))
    yield from entries.linear((*ours, "mlp_out"), f"{place}.mlp.fc2", (size.mlp, width))


def _texts(text: TextTower, outputs: int, projection: str) -> Iterator[Entry]:
    width, place, ours = text.size.width, "text_model.embeddings", ("text",)
    tokens = f"{place}.token_embedding.weight"
    yield entries.same((*ours, "tokens", "embedding"), tokens, (text.vocab_size, width))
    positions = f"{place}.position_embedding.weight"
    yield entries.same((*ours, "positions"), positions, (text.context_length, width))
    yield from entries.blocks("text_model.encoder.layers.{}.", _BLOCK, text.size, text.style, ours)
    yield from entries.norm((*ours, "norm"), "text_model.final_layer_norm", width)
    yield from entries.linear((*ours, "projection"), projection, (width, outputs), text.projection_bias)


def is_siglip(architecture: Architecture) -> bool:
    """Whether a model is written as SigLIP; else it is as CLIP."""
    return architecture.image.pool == "map"


def check_written(checkpoint: Checkpoint) -> None:
    """Checks that one of the two holds a model.

    Raises:
        WeightsError: if neither does; it says what would have to be otherwise.
    """
    architecture = checkpoint.architecture
    image, text = architecture.image, architecture.text
    assert text is not None
    siglips, own = is_siglip(architecture), image.variant
    parts.needs(
        checkpoint,
        "SiglipModel" if siglips else "CLIPModel",
        pool=("cls", "cls" if siglips else image.pool),
        pre_norm=(not siglips, own.pre_norm),
        patch_bias=(siglips, own.patch_bias),
        head=(not siglips, own.head),
        head_bias=(False, own.head_bias and own.head),
        class_token=(not siglips, image.class_token),
        class_position=(True, own.class_position),
        positions=("learned", own.positions),
        registers=(0, own.registers),
        layer_scale=(0.0, own.layer_scale or text.style.layer_scale),
        qkv_bias=(True, own.qkv_bias and text.style.qkv_bias),
        causal=(not siglips, text.causal),
        text_pool=("last" if siglips else "end", text.pool),
        projection_bias=(siglips, text.projection_bias),
        end_id=("another than 2", _end(text.end_id, siglips)),
        bias=(0.0, 0.0 if siglips else float(checkpoint.variables["params"]["bias"])),
    )


def _end(end_id: int, siglips: bool) -> Any:
    # It then reads a text at its largest id.
    return end_id if end_id == _LEGACY_END and not siglips else "another than 2"


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The `config.json` of a model that is written."""
    architecture = checkpoint.architecture
    image, text = architecture.image, architecture.text
    assert text is not None
    kind = "siglip" if is_siglip(architecture) else "clip"
    vision = {
        **_sized(image.size, image.variant.style),
        "model_type": f"{kind}_vision_model",
        "image_size": _side(image.image_size, checkpoint),
        "patch_size": image.patch_size,
        "num_channels": image.channels,
    }
    texts = {
        **_sized(text.size, text.style),
        "model_type": f"{kind}_text_model",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
        "eos_token_id": text.end_id,
    }
    if kind == "siglip":
        vision["vision_use_head"] = True
        texts |= {"projection_size": image.outputs, "bos_token_id": None, "pad_token_id": text.end_id}
    else:
        texts |= {"projection_dim": image.outputs, "bos_token_id": None, "pad_token_id": None}
        vision["projection_dim"] = image.outputs
    name = "SiglipModel" if kind == "siglip" else "CLIPModel"
    shared = {} if kind == "siglip" else {"projection_dim": image.outputs}
    return {
        "architectures": [name],
        "model_type": kind,
        "text_config": texts,
        "vision_config": vision,
        **shared,
    }


def _sized(size: transformer.Size, style: transformer.Style) -> dict[str, Any]:
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == style.activation)
    return {
        "hidden_size": size.width,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "hidden_act": activation,
        "layer_norm_eps": style.epsilon,
    }


def _side(image_size: tuple[int, int], checkpoint: Checkpoint) -> int:
    parts.needs(checkpoint, "Hugging Face", image_height=(image_size[1], image_size[0]))
    return image_size[0]
