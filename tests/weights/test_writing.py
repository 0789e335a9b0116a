"""Models written for other tools: what is read of them again is equal to the bit."""

import dataclasses

import numpy as np
import pytest
from weights_cases import SPECS

from classact.weights import exporting, matching, model_card, opening
from classact.weights.errors import WeightsError

# What each of them can be written as, its own tool first.
FORMATS = {
    "hf_clip": ("hf", "open_clip"),
    "hf_siglip": ("hf", "big_vision"),
    "open_clip_clip": ("open_clip",),
    "big_vision_siglip": ("big_vision", "hf"),
    "hf_vit": ("hf",),
    "hf_dinov2": ("hf", "timm"),
    "hf_dinov2_registers": ("hf",),
    "timm_cls": ("timm",),
    "timm_mean": ("timm",),
    "timm_map": ("timm",),
    "big_vision_gap": ("big_vision", "timm"),
    "big_vision_tok": ("big_vision", "timm", "hf"),
}
ENDINGS = {"hf": "", "open_clip": "", "timm": "", "big_vision": "/checkpoint.npz", "safetensors": ""}
CASES = [(name, kind) for name, kinds in FORMATS.items() for kind in kinds] + [
    (name, "safetensors") for name in ("hf_clip", "hf_siglip", "timm_mean")
]


def written(checkpoint, kind, folder):
    found = exporting.prepare(checkpoint, kind, folder)
    exporting.write(found, folder, model_card.card("it", checkpoint, kind, found.load, {}, {}))
    return opening.read(f"{kind}:{folder}{ENDINGS[kind]}")


def leaves(checkpoint):
    params = checkpoint.variables["params"]
    return {path: matching.get(params, path) for path in sorted(matching.paths(params))}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_is_written_is_read_again_to_the_bit(name, kind, tmp_path):
    first = opening.read(SPECS[name])
    again = written(first, kind, tmp_path / "out")
    assert list(leaves(again)) == list(leaves(first))
    for path, array in leaves(again).items():
        np.testing.assert_array_equal(array, leaves(first)[path], err_msg=str(path))
    for field in ("size", "patch_size", "image_size", "outputs", "pool", "channels"):
        assert getattr(again.architecture.image, field) == getattr(first.architecture.image, field)
    # Where a layer scale is learned, its start is nothing that an array shows.
    same = {"layer_scale": first.architecture.image.variant.layer_scale}
    found = again.architecture.image.variant
    assert dataclasses.replace(found, **same) == dataclasses.replace(first.architecture.image.variant, **same)
    assert again.architecture.text == first.architecture.text
    assert again.input.mean == first.input.mean and again.input.image_size == first.input.image_size
    assert first.class_names is None or kind == "big_vision" or again.class_names == first.class_names


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        (
            "hf_siglip",
            "open_clip",
            r"in towers of its own, has no such model: it would need pool='cls' \(this has 'map'\)",
        ),
        ("hf_clip", "big_vision", "activation='gelu_tanh' .this has 'quick_gelu'.*class_position=False"),
        ("hf_clip", "timm", r"timm has no such model: it would need texts=False .*--format=safetensors"),
        ("timm_mean", "hf", "Dinov2Model has no such model: it would need pool='cls' .this has 'mean'"),
        ("big_vision_tok", "open_clip", "texts=True"),
    ],
)
def test_what_a_tool_has_no_model_for_is_refused_with_all_that_differs(name, kind, said, tmp_path):
    with pytest.raises(WeightsError, match=said):
        exporting.prepare(opening.read(SPECS[name]), kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_nothing_diverged_is_written(tmp_path):
    checkpoint = opening.read(SPECS["big_vision_gap"])
    (tmp_path / "mine").write_text("")
    with pytest.raises(WeightsError, match="something is there already"):
        exporting.prepare(checkpoint, "safetensors", tmp_path)
    checkpoint.variables["params"]["head"]["bias"][0] = np.nan
    with pytest.raises(WeightsError, match=r"head\.bias is not finite"):
        exporting.prepare(checkpoint, "safetensors", tmp_path / "out")


def test_a_card_says_what_a_run_was(tmp_path):
    checkpoint = opening.read(SPECS["hf_vit"])
    config = {
        "data_sets": {"a": {"train_data": "folder:cats", "policy": "rho", "label_noise": 0.25}},
        "steps": 9,
        "seed": 3,
    }
    result = {"status": "completed", "steps": 7, "final": {"eval/test/top1": 0.5, "train/loss": 2.0}}
    result |= {"ledger": {"total_macs": 12e9, "redone_macs": 0.0}, "wall_seconds": 60.0, "cpu_seconds": 90.0}
    text = model_card.card("learner of it", checkpoint, "hf", "load()", config, result)
    for part in ("# learner of it", "library_name: transformers", "3 classes: cat, dog, ship", "8×8 pixels"):
        assert part in text
    for part in ("`folder:cats`; 25% of its", "policy: rho", "updates: 7 of 9, completed", "seed: 3"):
        assert part in text
    assert "| eval/test/top1 | 0.5 |" in text and "| total_macs | 1.2e+10 |" in text and "load()" in text
    assert "train/loss" not in text and "redone" not in text and "60 s, 90 s of processors" in text
    unfinished = model_card.card("it", checkpoint, "hf", "load()", config, {})
    assert "9 planned; the run has not ended" in unfinished and "None was measured." in unfinished
    assert "Training" not in model_card.card("it", checkpoint, "hf", "load()", {}, {})
