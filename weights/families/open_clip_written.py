"""Models as open_clip has them: `open_clip_config.json` and `open_clip_model.safetensors`."""

from typing import Any

from classact.weights import matching
from classact.weights.architecture import Checkpoint, ImageTower, TextTower
from classact.weights.families import open_clip, parts
from classact.weights.families.parts import Written

_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")


def written(checkpoint: Checkpoint) -> Written:
    """A model of images and texts as a folder for `open_clip.create_model("local-dir:…")`.

    Raises:
        WeightsError: if open_clip has no such model.
    """
    architecture = checkpoint.architecture
    image, text = architecture.image, architecture.text
    if text is None:
        parts.needs(checkpoint, "open_clip", texts=(True, False))
    assert text is not None
    _check(checkpoint, image, text)
    quick = image.variant.activation == "quick_gelu"
    bias = float(checkpoint.variables["params"]["bias"])
    config: dict[str, Any] = {
        "embed_dim": image.outputs,
        "quick_gelu": quick,
        "custom_text": True,
        "vision_cfg": _vision(image),
        "text_cfg": _texts(text),
    }
    params = checkpoint.variables["params"]
    if bias:
        config["init_logit_bias"] = bias
    else:
        params = {name: value for name, value in params.items() if name != "bias"}
    own = checkpoint.input
    images = {
        "size": list(own.image_size),
        "mode": "RGB",
        "mean": list(own.mean),
        "std": list(own.std),
        "interpolation": own.interpolation,
        "resize_mode": "shortest" if own.crop else "squash",
    }
    layout = list(open_clip.layout(architecture, "text.", trunk=False, bias=bool(bias)))
    return Written(
        matching.write(params, layout),
        "open_clip_model.safetensors",
        {open_clip.CONFIG: {"model_cfg": config, "preprocess_cfg": images}},
        {"format": "pt"},
        "import open_clip\nmodel, preprocess = open_clip.create_model_from_pretrained('local-dir:.')",
    )


def _check(checkpoint: Checkpoint, image: ImageTower, text: TextTower) -> None:
    own, heads = image.variant, image.size.heads
    quick = own.activation == "quick_gelu"
    parts.needs(
        checkpoint,
        "open_clip, in towers of its own,",
        pool=("cls", image.pool if image.pool != "mean" or not image.class_token else "cls"),
        patch_bias=(False, own.patch_bias),
        head=(True, own.head),
        head_bias=(False, own.head_bias),
        class_position=(True, own.class_position),
        positions=("learned", own.positions),
        registers=(0, own.registers),
        qkv_bias=(True, own.qkv_bias and text.style.qkv_bias),
        head_width=(image.size.width // heads * heads, image.size.width),
        channels=(3, image.channels),
        text_activation=(quick, text.style.activation == "quick_gelu"),
        causal=(text.pool == "end", text.causal),
    )


def _common(style: Any, size: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "layers": size.depth,
        "width": size.width,
        "mlp_ratio": size.mlp / size.width,
        "norm_kwargs": {"eps": style.epsilon},
    }
    if style.activation == "gelu_tanh":
        found["act_kwargs"] = {"approximate": "tanh"}
    if style.layer_scale:
        found["ls_init_value"] = style.layer_scale
    return found


def _vision(image: ImageTower) -> dict[str, Any]:
    own, (height, width) = image.variant, image.image_size
    return {
        **_common(own.style, image.size),
        "head_width": image.size.width // image.size.heads,
        "patch_size": image.patch_size,
        "image_size": height if height == width else [height, width],
        "no_ln_pre": not own.pre_norm,
        "pool_type": "tok" if image.pool == "cls" else "avg",
        "final_ln_after_pool": own.norm == "pooled",
    }


def _texts(text: TextTower) -> dict[str, Any]:
    found = {
        **_common(text.style, text.size),
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "heads": text.size.heads,
        "no_causal_mask": not text.causal,
        "proj_bias": text.projection_bias,
        "pool_type": "last",
    }
    if text.pool == "end":
        largest = text.end_id == text.vocab_size - 1
        found |= {"pool_type": "argmax"} if largest else {"pool_type": "eos", "eos_id": text.end_id}
    return found
