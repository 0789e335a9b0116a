"""Whether the tools themselves load what classact writes for them, and compute the same.

In two steps, as no environment has both. In classact's, the checkpoints in `fixtures/` and the
models of runs are written for every tool that has such a model:

    python tests/weights/check_exports.py write DIR [RUN_DIR …]

and in the environment that `make_fixtures.py` describes they are loaded and run:

    python tests/weights/check_exports.py load DIR big_vision

which prints the largest difference of each, and ends with status 1 if one is above 1e-4.
"""

import json
import pathlib
import sys

import numpy as np

FORMATS = ("hf", "open_clip", "timm", "big_vision")


def write(folder, runs):
    """Writes every model for every tool that has it, with inputs and what ours computes of them."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    import jax
    from weights_cases import SPECS

    from classact.launch.assembly.parts import run_weights
    from classact.weights import exporting, opening
    from classact.weights.errors import WeightsError

    found = {name: opening.read(spec) for name, spec in SPECS.items()}
    found |= {f"run_{i}": run_weights.of_run(pathlib.Path(run), "learner") for i, run in enumerate(runs)}
    for name, checkpoint in found.items():
        image, text = checkpoint.architecture.image, checkpoint.architecture.text
        rng = np.random.default_rng(0)
        batch = {"image": rng.integers(0, 256, (3, *image.image_size, image.channels), dtype=np.uint8)}
        if text is not None:
            batch["text"] = rng.integers(3, text.vocab_size - 1, (3, text.context_length)).astype(np.int32)
            batch["text"][:, -2:] = text.end_id
        model = checkpoint.architecture.model()
        outputs, _ = jax.jit(model.apply, static_argnames="train")(checkpoint.variables, batch, train=False)
        for kind in FORMATS:
            place = folder / f"{name}-{kind}"
            try:
                made = exporting.prepare(checkpoint, kind, place)
            except WeightsError as error:
                print(f"{place.name}: {error}")
                continue
            exporting.write(made, place, "")
            said = {"mean": checkpoint.input.mean, "std": checkpoint.input.std}
            np.savez(place / "expected.npz", **batch, **said, **{f"out_{k}": v for k, v in outputs.items()})


def load(folder, big_vision):
    """Loads each with its tool; returns whether all are equal."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import make_fixtures

    modules = make_fixtures.big_vision_modules(big_vision)
    worst = 0.0
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        kind = place.name.rpartition("-")[2]
        with np.load(place / "expected.npz") as file:
            wanted = dict(file)
        if kind == "big_vision":
            found = of_big_vision(place, wanted, *modules)
        else:
            pixels = make_fixtures.pixels(wanted["image"], wanted["mean"], wanted["std"])
            found = {"hf": of_hf, "open_clip": of_open_clip, "timm": of_timm}[kind](place, pixels, wanted)
        differences = [
            np.abs(make_fixtures.unit(value) - make_fixtures.unit(wanted[name])).max()
            for name, value in found.items()
        ]
        print(f"{place.name}: {max(differences):.1e} in {', '.join(found)}")
        worst = max(worst, *differences)
    return worst <= 1e-4


def of_hf(place, pixels, wanted):
    import torch
    import transformers

    kind = json.loads((place / "config.json").read_text())["architectures"][0]
    model, told = getattr(transformers, kind).from_pretrained(place, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"], told
    with torch.no_grad():
        if "text" not in wanted:
            output = model.eval()(pixels)
            return {"out_logits": output.logits if kind.startswith("ViT") else output.pooler_output}
        tokens = torch.from_numpy(wanted["text"]).long()
        output = model.eval()(input_ids=tokens, pixel_values=pixels)
    return {"out_image_embedding": output.image_embeds, "out_text_embedding": output.text_embeds}


def of_open_clip(place, pixels, wanted):
    import open_clip
    import torch

    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{place}")
    with torch.no_grad():
        text = model.encode_text(torch.from_numpy(wanted["text"]).long())
        return {"out_image_embedding": model.encode_image(pixels), "out_text_embedding": text}


def of_timm(place, pixels, wanted):
    import timm
    import torch

    model = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    with torch.no_grad():
        return {"out_logits": model(pixels)}


def of_big_vision(place, wanted, vit, two_towers):
    """By the lines of its own loaders that bring an older layout to today's."""
    with np.load(place / "checkpoint.npz") as file:
        arrays = {name.removeprefix("params/"): file[name] for name in file.files}
    params = {}
    for name, array in arrays.items():
        *groups, last = name.split("/")
        inner = params
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = array
    image = wanted["image"].astype(np.float32) / 127.5 - 1
    if "txt" not in params:
        return {"out_logits": vit_of(params, vit).apply({"params": params}, image)[0]}
    encoder = params["txt"]["Encoder_0"]
    text = {**sizes(encoder), "vocab_size": len(params["txt"]["Embed_0"]["embedding"])}
    own = {**sizes(params["img"]["Transformer"]), **patch_of(params["img"]), "pool_type": "map"}
    width = params["txt"]["head"]["kernel"].shape[1]
    out = (params["img"].get("head") and width, width)
    model = two_towers.Model(image=own, text=text, out_dim=out, bias_init=-10.0)
    image, text, _ = model.apply({"params": params}, image, wanted["text"])
    return {"out_image_embedding": image, "out_text_embedding": text}


def vit_of(params, vit):
    # In place, as its `load` uses the function.
    fixed = vit.fix_old_checkpoints(params)
    params.clear()
    params.update(fixed)
    pool = "map" if "MAPHead_0" in params else "tok" if "cls" in params else "gap"
    classes = params["head"]["bias"].shape[0] if "head" in params else None
    return vit.Model(classes, pool_type=pool, **patch_of(params), **sizes(params["Transformer"]))


def patch_of(params):
    return {"patch_size": params["embedding"]["kernel"].shape[:2]}


def sizes(encoder):
    block = encoder["encoderblock_0"]
    attention = next(value for name, value in block.items() if name.startswith("MultiHead"))
    mlp = next(value for name, value in block.items() if name.startswith("Mlp"))
    width, heads, _ = attention["query"]["kernel"].shape
    depth = sum(name.startswith("encoderblock_") for name in encoder)
    return {"width": width, "depth": depth, "mlp_dim": mlp["Dense_0"]["kernel"].shape[1], "num_heads": heads}


if __name__ == "__main__":
    step, place, *more = sys.argv[1:]
    if step == "write":
        write(pathlib.Path(place), more)
    elif not load(pathlib.Path(place), *more):
        sys.exit(1)
