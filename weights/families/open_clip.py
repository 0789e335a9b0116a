"""open_clip's CLIP and SigLIP: a folder as for the hub, or a file of weights and a model's name or JSON."""

import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from classact.models import transformer, two_tower
from classact.models.variant import Variant
from classact.weights import entries, matching
from classact.weights.architecture import (
    Architecture,
    Checkpoint,
    ImageTower,
    TextTower,
    Tokenizer,
    input_of,
)
from classact.weights.entries import BlockNames, Entry
from classact.weights.errors import WeightsError
from classact.weights.families import parts, timm
from classact.weights.families.parts import Fields
from classact.weights.files import opened
from classact.weights.files.tensors import Renamed, TensorFile

POSITIONS = "antialiased"
CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
BLOCK = BlockNames(
    "ln_1", ("attn.in_proj",), "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj", ("ls_1.gamma", "ls_2.gamma")
)
IGNORED = (r".*attn_mask",)
_VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16,
           "image_size": 224, "pool_type": "tok", "timm_pool": "avg", "timm_proj": "linear",
           "timm_proj_bias": False}  # fmt: skip
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12,
         "mlp_ratio": 4.0, "pool_type": "argmax", "proj_type": "linear", "eos_id": 2, "proj_bias": False,
         "no_causal_mask": False}  # fmt: skip
# What no tower here has; each is off by default.
_OFF: Mapping[str, Any] = {"qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False,
                           "scale_attn_inner": False, "scale_attn": False, "scale_fc": False}  # fmt: skip
_NAME = re.compile(r"ViT-(?P<size>B|L|H|g|bigG)-(?P<patch>\d+)(-(?P<side>\d+))?(?P<quick>-quickgelu)?")
# embed_dim, vision (layers, width, head_width, mlp_ratio), text (width, heads, layers).
_SIZES: Mapping[str, tuple[int, tuple[int, int, int, float], tuple[int, int, int]]] = {
    "B": (512, (12, 768, 64, 4.0), (512, 8, 12)),
    "L": (768, (24, 1024, 64, 4.0), (768, 12, 12)),
    "H": (1024, (32, 1280, 80, 4.0), (1024, 16, 24)),
    "g": (1024, (40, 1408, 88, 4.3637), (1024, 16, 24)),
    "bigG": (1280, (48, 1664, 104, 4.9231), (1280, 20, 32)),
}


def read(spec: str, path: pathlib.Path, model: str) -> Checkpoint:
    """Reads a folder or a file.

    Args:
        spec: what the user wrote, for messages.
        path: of either.
        model: a name of open_clip's, or a file with its JSON; "": the folder says it.

    Raises:
        WeightsError: if something is missing or damaged, or has no counterpart.
    """
    found = opened.read_json(path / CONFIG) if (path / CONFIG).exists() else {}
    label = spec
    if model:
        config = opened.read_json(pathlib.Path(model)) if model.endswith(".json") else _of_name(spec, model)
    elif isinstance(found.get("model_cfg"), dict):
        config, label = found["model_cfg"], str(path / CONFIG)
    else:
        raise WeightsError(
            f"{spec}: no {CONFIG} in it: say ?model=NAME as open_clip calls it, or a JSON file"
        )
    file = opened.in_folder(path, _WEIGHTS)
    if all(name.startswith("module.") for name in file.tensors):
        # As training on several devices saves them.
        file = Renamed(file, "module.")
    images = parts.group(found, "preprocess_cfg", str(path / CONFIG))
    architecture = describe(label, file, config, images)
    layout = list(layout_of(architecture, file))
    params = matching.read(file, layout, f"the model of {label}", IGNORED)
    params.setdefault("bias", parts.no_bias())
    own = input_of(
        architecture,
        parts.interpolation(images.get("interpolation"), f"{label}: interpolation"),
        0.0 if images.get("resize_mode") == "squash" else 1.0,
        _tokenizer(config, architecture),
    )
    return Checkpoint(spec, architecture, own, {"params": params, "state": {}})


def _of_name(spec: str, name: str) -> dict[str, Any]:
    """The configuration that open_clip has under a name."""
    known = _NAME.fullmatch(name)
    if known is None:
        raise WeightsError(
            f"{spec}: model={name}: known are ViT-{{{','.join(_SIZES)}}}-PATCH, with -SIDE and -quickgelu "
            "behind them; of another give the JSON file that open_clip has of it"
        )
    features, (layers, width, head, ratio), (text_width, heads, text_layers) = _SIZES[known["size"]]
    return {
        "embed_dim": features,
        "quick_gelu": bool(known["quick"]),
        "vision_cfg": {
            "image_size": int(known["side"] or 224), "layers": layers, "width": width, "head_width": head,
            "mlp_ratio": ratio, "patch_size": int(known["patch"]),
        },
        "text_cfg": {"width": text_width, "heads": heads, "layers": text_layers},
    }  # fmt: skip


def describe(
    label: str, file: TensorFile, config: Mapping[str, Any], images: Mapping[str, Any]
) -> Architecture:
    """Describes a model by open_clip's JSON.

    Args:
        label: for messages.
        file: with the arrays, for a tower of timm's.
        config: the JSON.
        images: its `preprocess_cfg`; empty: what is usual.

    Raises:
        WeightsError: for a field that has no counterpart.
    """
    fields = Fields(label, config, {"embed_dim": None})
    fields.forbid(multimodal_cfg=None)
    quick = bool(fields.get("quick_gelu"))
    vision, texts = fields.group("vision_cfg", _VISION), fields.group("text_cfg", _TEXT)
    features = fields.whole("embed_dim")
    if vision.get("timm_model_name"):
        image = _timm_tower(label, file, vision, features, images)
    else:
        image = _own_tower(label, vision, features, quick, images)
    text = _text_tower(texts, quick)
    sigmoid = "logit_bias" in file.tensors
    return Architecture(image, text, math.inf if sigmoid else two_tower.MAX_SCALE)


def _style(fields: Fields, quick: bool) -> transformer.Style:
    activation = "quick_gelu" if quick else "gelu"
    kwargs = fields.get("act_kwargs") or {}
    norm = fields.get("norm_kwargs") or {}
    if not isinstance(norm, dict) or set(norm) - {"eps"}:
        fields.refuse("norm_kwargs", "{'eps': NUMBER} or nothing")
    if kwargs == {"approximate": "tanh"} and not quick:
        activation = "gelu_tanh"
    elif kwargs:
        fields.refuse("act_kwargs", "{'approximate': 'tanh'} or nothing")
    epsilon = Fields("norm_kwargs", norm, {"eps": 1e-5}).number("eps")
    scale = fields.number("ls_init_value") if fields.get("ls_init_value") else 0.0
    return transformer.Style(activation, epsilon, layer_scale=scale)


def _own_tower(
    label: str, vision: Fields, features: int, quick: bool, images: Mapping[str, Any]
) -> ImageTower:
    vision.forbid(**_OFF, attentional_pool=False)
    if isinstance(vision.get("layers"), list):
        vision.refuse("layers", "one number: a ResNet is not read")
    width, style = vision.whole("width"), _style(vision, quick)
    mean = parts.per_channel(images.get("mean"), parts.CLIP_MEAN, f"{label}: mean")
    std = parts.per_channel(images.get("std"), parts.CLIP_STD, f"{label}: std")
    pool = vision.one_of("pool_type", {"tok": "cls", "avg": "mean"})
    variant = Variant(
        activation=style.activation,
        epsilon=style.epsilon,
        layer_scale=style.layer_scale,
        pre_norm=not vision.get("no_ln_pre"),
        patch_bias=False,
        class_token=None if pool == "cls" else True,
        norm="pooled" if vision.get("final_ln_after_pool") and pool == "mean" else "tokens",
        head_bias=False,
        mean=mean,
        std=std,
    )
    size = transformer.Size(
        width,
        vision.whole("layers"),
        int(width * vision.number("mlp_ratio")),
        width // vision.whole("head_width"),
    )
    sides = vision.sides("image_size")
    return ImageTower(size, vision.whole("patch_size"), sides, features, pool, 3, variant)


def _timm_tower(
    label: str, file: TensorFile, vision: Fields, features: int, images: Mapping[str, Any]
) -> ImageTower:
    name = str(vision.get("timm_model_name"))
    pool = vision.get("timm_pool")
    said = {"pretrained_cfg": {key: images[key] for key in ("mean", "std") if key in images}}
    if pool:
        said["global_pool"] = pool
    trunk = timm.describe(label, Renamed(file, "visual.trunk."), name, said).image
    projection = vision.get("timm_proj") or ""
    if projection == "linear":
        # It stands behind the trunk, as our head does.
        own = timm.without_head(Architecture(trunk)).image
        changed = {**own.options, "head": True, "head_bias": bool(vision.get("timm_proj_bias"))}
        return _with(own, features, changed)
    if projection not in ("", "none") or trunk.outputs != features:
        vision.refuse("timm_proj", f"linear or none, with embed_dim={trunk.outputs}")
    return trunk


def _with(tower: ImageTower, outputs: int, options: Mapping[str, Any]) -> ImageTower:
    skip = ("pool", *(f for f in ("width", "depth", "mlp", "heads") if f in options))
    variant = Variant(**{name: value for name, value in options.items() if name not in skip})
    return ImageTower(
        tower.size, tower.patch_size, tower.image_size, outputs, tower.pool, tower.channels, variant
    )


def _text_tower(texts: Fields, quick: bool) -> TextTower:
    texts.forbid(**_OFF, hf_model_name=None, embed_cls=False, final_ln_after_pool=False, use_pad_mask=False)
    pool = texts.one_of("pool_type", {"argmax": "end", "eos": "end", "last": "last"})
    causal = not texts.get("no_causal_mask")
    if pool == "end" and not causal:
        texts.refuse("no_causal_mask", "false with pool_type=argmax or eos")
    texts.one_of("proj_type", {"linear": "linear"})
    width, vocabulary = texts.whole("width"), texts.whole("vocab_size")
    size = transformer.Size(
        width, texts.whole("layers"), int(width * texts.number("mlp_ratio")), texts.whole("heads")
    )
    # The largest id is the end.
    end = texts.whole("eos_id", 0) if texts.get("pool_type") == "eos" else vocabulary - 1
    end = 1 if pool == "last" else end
    bias = bool(texts.get("proj_bias"))
    length = texts.whole("context_length")
    return TextTower(size, vocabulary, length, end, causal, pool, bias, _style(texts, quick))


def _tokenizer(config: Mapping[str, Any], architecture: Architecture) -> Tokenizer:
    assert architecture.text is not None
    name = (config.get("text_cfg") or {}).get("hf_tokenizer_name")
    end = architecture.text.end_id
    if name:
        return Tokenizer("hugging_face", str(name), end)
    return Tokenizer("clip" if architecture.text.vocab_size == 49408 else "unknown", "", end)


def layout_of(architecture: Architecture, file: TensorFile) -> Iterator[Entry]:
    """How the arrays of a file are named."""
    found = file.tensors
    return layout(
        architecture,
        "text." if "text.token_embedding.weight" in found else "",
        trunk="visual.trunk.pos_embed" in found,
        scalar=found["logit_scale"].shape if "logit_scale" in found else (),
        bias="logit_bias" in found,
    )


def layout(
    architecture: Architecture,
    text_prefix: str,
    trunk: bool,
    scalar: tuple[int, ...] = (),
    bias: bool = False,
) -> Iterator[Entry]:
    """How the arrays are named.

    Args:
        architecture: of the model.
        text_prefix: what those of the text tower begin with.
        trunk: whether the image tower is one of timm's.
        scalar: shape of the scale and the bias.
        bias: whether there is a bias of the similarities.
    """
    image, text = architecture.image, architecture.text
    assert text is not None
    width = image.size.width
    if trunk:
        yield from _trunk(image)
    else:
        rows, columns = image.grid
        count = rows * columns + 1
        yield entries.reshaped(("image", "cls"), (1, 1, width), "visual.class_embedding", (width,))
        positions = "visual.positional_embedding"
        yield entries.reshaped(("image", "positions"), (1, count, width), positions, (count, width))
        place = ("image", "patch_embedding")
        yield from entries.patches("visual.conv1", width, image.patch_size, image.channels, False, place)
        if image.variant.pre_norm:
            yield from entries.norm(("image", "pre_norm"), "visual.ln_pre", width)
        resblocks = "visual.transformer.resblocks.{}."
        yield from entries.blocks(resblocks, BLOCK, image.size, image.variant.style, ("image",))
        yield from entries.norm(("image", "norm"), "visual.ln_post", width)
        yield entries.same(("image", "head", "kernel"), "visual.proj", (width, image.outputs))
    yield from _texts(text, image.outputs, text_prefix)
    yield entries.reshaped(("log_scale",), (), "logit_scale", scalar)
    if bias:
        yield entries.reshaped(("bias",), (), "logit_bias", scalar)


def _trunk(image: ImageTower) -> Iterator[Entry]:
    variant = image.variant
    if not variant.head:
        yield from timm.layout(Architecture(image), "visual.trunk.", ("image",))
        return
    without = timm.without_head(Architecture(image))
    yield from timm.layout(without, "visual.trunk.", ("image",))
    shape = (image.size.width, image.outputs)
    yield from entries.linear(("image", "head"), "visual.head.proj", shape, variant.head_bias)


def _texts(text: TextTower, outputs: int, prefix: str) -> Iterator[Entry]:
    width, ours = text.size.width, ("text",)
    tokens = f"{prefix}token_embedding.weight"
    yield entries.same((*ours, "tokens", "embedding"), tokens, (text.vocab_size, width))
    positions = f"{prefix}positional_embedding"
    yield entries.same((*ours, "positions"), positions, (text.context_length, width))
    yield from entries.blocks(f"{prefix}transformer.resblocks.{{}}.", BLOCK, text.size, text.style, ours)
    yield from entries.norm((*ours, "norm"), f"{prefix}ln_final", width)
    shape = (width, outputs)
    if text.projection_bias:
        yield from entries.linear((*ours, "projection"), f"{prefix}text_projection", shape)
    else:
        yield entries.same((*ours, "projection", "kernel"), f"{prefix}text_projection", shape)
