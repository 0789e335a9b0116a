"""Makes the checkpoints in `fixtures/`: tiny models with random weights, built and run by their own tools.

What it needs is no dependency of classact; an environment of its own has it:

    python3.11 -m venv DIR
    DIR/bin/pip install torch==2.13.0 transformers==5.24.0 safetensors jax flax scipy pillow ftfy regex
    DIR/bin/pip install --no-deps open_clip_torch==3.3.0 timm==1.0.31 torchvision==0.28.0
    git clone https://github.com/google-research/big_vision
    DIR/bin/python tests/weights/make_fixtures.py big_vision

Each folder holds a checkpoint as its tool saves it and `expected.npz`: images uint8 and texts
int32, and what the tool computes of them, at the checkpoint's image size and at another
one, to which the tool itself brings the positions. Embeddings have norm 1.
"""

import importlib
import json
import pathlib
import shutil
import sys
import types

import numpy as np
import torch

# torchvision's compiled part does not fit a PyTorch for CPUs; what is used of it is Python.
for _name in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )

import open_clip  # noqa: E402
import timm  # noqa: E402
import transformers  # noqa: E402
from open_clip import model as open_clip_model  # noqa: E402
from timm.models import VisionTransformer, register_model  # noqa: E402
from timm.models._hub import save_for_hf  # noqa: E402

FOLDER = pathlib.Path(__file__).parent / "fixtures"
SIDE, OTHER, PATCH = 8, 12, 4
VOCABULARY, LENGTH = 40, 6
SIZE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SIZE, "num_hidden_layers": 1, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
IMAGE = {**SIZE, "image_size": SIDE, "patch_size": PATCH}


def folder(name):
    place = FOLDER / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def images(side, seed):
    return np.random.default_rng(seed).integers(0, 256, (3, side, side, 3), dtype=np.uint8)


def texts(end):
    tokens = np.random.default_rng(7).integers(2, VOCABULARY - 2, (3, LENGTH)).astype(np.int32)
    for row, place in enumerate((2, LENGTH - 1, 4)):
        tokens[row, place:] = end
    return tokens


def pixels(image, mean, std):
    scaled = (image.astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(scaled.astype(np.float32).transpose(0, 3, 1, 2))


@torch.no_grad()
def shuffled(model, seed=0):
    """Away from initial zeros and ones, so that every parameter counts."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def unit(x):
    x = np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def expect(place, **arrays):
    np.savez(place / "expected.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    print(place.name, sum(path.stat().st_size for path in place.iterdir()))


def preprocessor(place, mean, std, **more):
    said = {"do_normalize": True, "image_mean": mean, "image_std": std, "resample": 3, **more}
    (place / "preprocessor_config.json").write_text(json.dumps(said))


def hf_two_towers(name, model, end, mean, std):
    place = folder(name)
    model = shuffled(model)
    model.save_pretrained(place)
    crop = {"do_center_crop": True, "size": {"shortest_edge": SIDE}} if name == "hf_clip" else {}
    preprocessor(place, mean, std, **crop)
    found = {"image": images(SIDE, 1), "other_image": images(OTHER, 2), "text": texts(end)}
    tokens = torch.from_numpy(found["text"]).long()
    output = model(input_ids=tokens, pixel_values=pixels(found["image"], mean, std))
    other = model(
        input_ids=tokens,
        pixel_values=pixels(found["other_image"], mean, std),
        interpolate_pos_encoding=True,
    )
    expect(
        place,
        **found,
        image_embedding=unit(output.image_embeds),
        text_embedding=unit(output.text_embeds),
        similarities=output.logits_per_image.detach(),
        other_image_embedding=unit(other.image_embeds),
    )


def hugging_face():
    clip = transformers.CLIPConfig(
        text_config={**TEXT, "eos_token_id": VOCABULARY - 1, "bos_token_id": 0, "pad_token_id": 1},
        vision_config=IMAGE,
        projection_dim=10,
    )
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    hf_two_towers("hf_clip", transformers.CLIPModel(clip), VOCABULARY - 1, mean, std)
    siglip = transformers.SiglipConfig(
        text_config={**TEXT, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}, vision_config=IMAGE
    )
    hf_two_towers("hf_siglip", transformers.SiglipModel(siglip), 1, [0.5] * 3, [0.5] * 3)

    mean, std = [0.5] * 3, [0.5] * 3
    labels = {0: "cat", 1: "dog", 2: "ship"}
    config = transformers.ViTConfig(**IMAGE, id2label=labels, label2id={v: k for k, v in labels.items()})
    model = shuffled(transformers.ViTForImageClassification(config))
    place = folder("hf_vit")
    # In shards, with an index.
    model.save_pretrained(place, max_shard_size="12KB")
    preprocessor(place, mean, std)
    found = {"image": images(SIDE, 1), "other_image": images(OTHER, 2)}
    output = model(pixels(found["image"], mean, std), output_hidden_states=True)
    other = model(pixels(found["other_image"], mean, std), interpolate_pos_encoding=True)
    embedding = model.vit.layernorm(output.hidden_states[-1])[:, 0]
    expect(
        place,
        **found,
        logits=output.logits.detach(),
        embedding=embedding.detach(),
        other_logits=other.logits.detach(),
    )
    own = {key: value for key, value in IMAGE.items() if key != "intermediate_size"}
    dino("hf_dinov2", transformers.Dinov2Model(transformers.Dinov2Config(**own, mlp_ratio=2)))
    config = transformers.Dinov2WithRegistersConfig(**own, mlp_ratio=2, num_register_tokens=3)
    dino("hf_dinov2_registers", transformers.Dinov2WithRegistersModel(config))


def dino(name, model):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    # Saved in bfloat16: what is computed is of the rounded weights.
    model = shuffled(model).to(torch.bfloat16)
    place = folder(name)
    model.save_pretrained(place)
    model = model.float()
    preprocessor(place, mean, std)
    found = {"image": images(SIDE, 1), "other_image": images(OTHER, 2)}
    output, other = (
        model(pixels(found[key], mean, std)).pooler_output.detach() for key in ("image", "other_image")
    )
    expect(place, **found, embedding=output, other_embedding=other)


@register_model
def vit_fixture_patch4_siglip_8(pretrained=False, **kwargs):
    own = {key: value for key, value in kwargs.items() if key in ("num_classes", "global_pool", "img_size")}
    own = {"img_size": SIDE, "global_pool": "map", **own}
    return VisionTransformer(
        patch_size=PATCH, embed_dim=16, depth=1, num_heads=1, mlp_ratio=1.5, class_token=False, **own
    )


def open_clip_models():
    text = {
        "context_length": LENGTH,
        "vocab_size": VOCABULARY,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "mlp_ratio": 1.5,
    }
    vision = {
        "image_size": SIDE, "patch_size": PATCH, "width": 16, "head_width": 8, "layers": 2, "mlp_ratio": 1.5,
        "ls_init_value": 0.5,
    }  # fmt: skip
    config = {"embed_dim": 10, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    open_clip_model_of("open_clip_clip", config, open_clip_model.CLIP, VOCABULARY - 1)
    config = {
        "embed_dim": 16,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": SIDE,
            "timm_model_name": "vit_fixture_patch4_siglip_8",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **text,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        },
    }
    open_clip_model_of("open_clip_siglip", config, open_clip_model.CustomTextCLIP, 1)


def open_clip_model_of(name, config, kind, end):
    mean, std = ([0.5] * 3, [0.5] * 3) if kind is open_clip_model.CustomTextCLIP else (
        list(open_clip.OPENAI_DATASET_MEAN), list(open_clip.OPENAI_DATASET_STD),
    )  # fmt: skip

    def make(side):
        own = {key: value for key, value in config.items() if key != "custom_text"}
        own = {**own, "vision_cfg": {**own["vision_cfg"], "image_size": side}}
        return kind(**json.loads(json.dumps(own)))

    model = shuffled(make(SIDE))
    place = folder(name)
    said = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std, "interpolation": "bicubic"}}
    (place / "open_clip_config.json").write_text(json.dumps(said))
    importlib.import_module("safetensors.torch").save_file(
        model.state_dict(), place / "open_clip_model.safetensors", {"format": "pt"}
    )
    if kind is open_clip_model.CLIP:
        # As a training that was saved, on several devices, in half precision.
        half = {f"module.{key}": value.half() for key, value in model.state_dict().items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": half}, place / "epoch_3.pt")
    found = {"image": images(SIDE, 1), "other_image": images(OTHER, 2), "text": texts(end)}
    tokens = torch.from_numpy(found["text"]).long()
    image, text = model.encode_image(pixels(found["image"], mean, std)), model.encode_text(tokens)
    logits = model.get_logits(pixels(found["image"], mean, std), tokens)[0]
    if kind is open_clip_model.CLIP:
        larger, state = make(OTHER).eval(), model.state_dict()
        open_clip_model.resize_pos_embed(state, larger)
        larger.load_state_dict(state)
    else:
        larger = model
        larger.visual.trunk.set_input_size((OTHER, OTHER))
    other = larger.encode_image(pixels(found["other_image"], mean, std))
    expect(
        place,
        **found,
        image_embedding=unit(image),
        text_embedding=unit(text),
        similarities=logits.detach(),
        other_image_embedding=unit(other),
    )


TIMM = {
    "timm_cls": {"class_token": True, "global_pool": "token", "num_classes": 5},
    "timm_mean": {
        "class_token": True, "global_pool": "avg", "num_classes": 5, "reg_tokens": 2, "no_embed_class": True,
        "init_values": 0.5,
    },
    "timm_map": {"class_token": False, "global_pool": "map", "num_classes": 0, "pre_norm": True,
                 "qkv_bias": False},
}  # fmt: skip


def timm_models():
    for name, arguments in TIMM.items():
        own = {
            "img_size": SIDE, "patch_size": PATCH, "embed_dim": 16, "depth": 2, "num_heads": 2,
            "mlp_ratio": 1.5, **arguments,
        }  # fmt: skip
        model = timm.create_model("vit_base_patch16_224", **own)
        model = shuffled(model)
        place = folder(name)
        model.pretrained_cfg.update(mean=(0.5, 0.4, 0.6), std=(0.3, 0.2, 0.1), input_size=(3, SIDE, SIDE))
        config = {"label_names": list("abcde")} if own["num_classes"] else {}
        save_for_hf(model, place, model_config=config, model_args=own, safe_serialization=True)
        found = {"image": images(SIDE, 1), "other_image": images(OTHER, 2)}
        mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        logits = model(pixels(found["image"], mean, std)).detach()
        embedding = model.forward_head(
            model.forward_features(pixels(found["image"], mean, std)), pre_logits=True
        ).detach()
        model.set_input_size(img_size=(OTHER, OTHER))
        other = model(pixels(found["other_image"], mean, std)).detach()
        expect(place, **found, logits=logits, embedding=embedding, other_logits=other)


ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}


def timm_names():
    """What timm's names mean: those of plain models, and what does not show in their arrays."""
    rows = {}
    for name in [n for kind in ("vit_*", "deit*") for n in timm.list_models(kind) if "fixture" not in n]:
        with torch.device("meta"):
            try:
                model = timm.create_model(name)
            except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
                print(name, error)
                continue
        plain = type(model) is VisionTransformer and type(model.blocks[0]).__name__ == "Block"
        if not plain or type(model.blocks[0].mlp).__name__ != "Mlp" or "resnet" in name or "r26" in name:
            continue
        norm = model.norm if isinstance(model.norm, torch.nn.LayerNorm) else model.fc_norm
        if not isinstance(norm, torch.nn.LayerNorm):
            continue
        block, cfg = model.blocks[0], timm.get_pretrained_cfg(name, allow_unregistered=False)
        rows[name] = [
            ACTIVATIONS[type(block.mlp.act).__name__],
            norm.eps, model.embed_dim, block.attn.num_heads, list(cfg.mean), list(cfg.std),
        ]  # fmt: skip
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    (FOLDER / "timm_names.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def big_vision_modules(checkout):
    """big_vision's models, without the rest of it, which wants TensorFlow."""
    sys.path.insert(0, str(checkout))
    utils = types.ModuleType("big_vision.utils")
    importlib.import_module("big_vision")
    sys.modules["big_vision.utils"] = utils
    sys.modules["big_vision"].utils = utils
    common = types.ModuleType("big_vision.models.common")
    importlib.import_module("big_vision.models")
    sys.modules["big_vision.models.common"] = common
    sys.modules["big_vision.models"].common = common
    return importlib.import_module("big_vision.models.vit"), importlib.import_module(
        "big_vision.models.proj.image_text.two_towers"
    )


def flat(tree, before=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}/")
        else:
            yield f"{before}{key}", np.asarray(value)


def big_vision_models(checkout):
    import jax

    vit, two_towers = big_vision_modules(checkout)

    def scaled(image):
        return image.astype(np.float32) / 127.5 - 1

    def away(variables, seed):
        rng = np.random.default_rng(seed)
        return jax.tree.map(
            lambda x: np.asarray(x) + 0.2 * rng.normal(size=x.shape).astype(np.float32), variables
        )

    def resized(params, side):
        new = jax.ShapeDtypeStruct((1, (side // PATCH) ** 2, 16), np.float32)
        return {**params, "pos_embedding": vit.resample_posemb(params["pos_embedding"], new)}

    found = {"image": images(SIDE, 1), "other_image": images(OTHER, 2)}
    own = {"patch_size": (PATCH, PATCH), "width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2}
    for name, pool in (("big_vision_gap", "gap"), ("big_vision_tok", "tok")):
        model = vit.Model(5, pool_type=pool, **own)
        params = away(model.init(jax.random.key(0), scaled(found["image"]))["params"], 3)
        logits, out = model.apply({"params": params}, scaled(found["image"]))
        other, _ = model.apply({"params": resized(params, OTHER)}, scaled(found["other_image"]))
        place = folder(name)
        arrays = dict(flat(params))
        arrays = (
            augreg(arrays) if pool == "tok" else {f"params/{key}": value for key, value in arrays.items()}
        )
        np.savez(place / "checkpoint.npz", **arrays)
        expect(place, **found, logits=logits, embedding=out["pre_logits"], other_logits=other)
    siglip(two_towers, own, found, scaled, away, resized)


def augreg(arrays):
    """The older layout, whose class token has a position: the sum is what big_vision has in its place."""
    renamed = {}
    for key, value in arrays.items():
        key = key.replace("LayerNorm_1", "LayerNorm_2").replace("MlpBlock_0", "MlpBlock_3")
        renamed[key.replace("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1")] = value
    place = np.random.default_rng(5).normal(size=(1, 1, 16)).astype(np.float32)
    positions = np.concatenate([place, renamed.pop("pos_embedding")], axis=1)
    return {**renamed, "Transformer/posembed_input/pos_embedding": positions, "cls": renamed["cls"] - place}


def siglip(two_towers, own, found, scaled, away, resized):
    """With stacked layers, as the larger ones are saved."""
    import jax

    # ml_collections' ConfigDict is used like a dict there.
    model = two_towers.Model(
        image={**own, "pool_type": "map", "scan": True},
        text={"width": 16, "depth": 1, "mlp_dim": 24, "num_heads": 2, "vocab_size": VOCABULARY},
        out_dim=(None, 16),
        temperature_init=10.0,
        bias_init=-10.0,
    )
    found = {**found, "text": texts(1)}
    params = away(model.init(jax.random.key(0), scaled(found["image"]), found["text"])["params"], 4)
    image, text, out = model.apply({"params": params}, scaled(found["image"]), found["text"])
    larger = {**params, "img": resized(params["img"], OTHER)}
    other, _, _ = model.apply({"params": larger}, scaled(found["other_image"]))
    place = folder("big_vision_siglip")
    np.savez(place / "checkpoint.npz", **{f"params/{key}": value for key, value in flat(params)})
    similarities = np.asarray(out["t"]) * np.asarray(image) @ np.asarray(text).T + np.asarray(out["b"])
    expect(
        place, **found, image_embedding=image, text_embedding=text, similarities=similarities,
        other_image_embedding=other,
    )  # fmt: skip


if __name__ == "__main__":
    torch.manual_seed(0)
    hugging_face()
    open_clip_models()
    timm_models()
    timm_names()
    big_vision_models(pathlib.Path(sys.argv[1]))
