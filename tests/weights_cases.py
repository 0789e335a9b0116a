"""The checkpoints in `weights/fixtures`, which `weights/make_fixtures.py` has made, by their specs."""

import pathlib

import numpy as np

FIXTURES = pathlib.Path(__file__).parent / "weights" / "fixtures"
PAIRS = {
    "hf_clip": "hf:{}",
    "hf_siglip": "hf:{}",
    "open_clip_clip": "open_clip:{}",
    "open_clip_siglip": "open_clip:{}",
    "big_vision_siglip": "big_vision:{}/checkpoint.npz",
}
IMAGES = {
    "hf_vit": "hf:{}",
    "hf_dinov2": "hf:{}",
    "hf_dinov2_registers": "hf:{}",
    "timm_cls": "timm:{}",
    "timm_mean": "timm:{}",
    "timm_map": "timm:{}",
    "big_vision_gap": "big_vision:{}/checkpoint.npz",
    "big_vision_tok": "big_vision:{}/checkpoint.npz",
}
SPECS = {name: spec.format(FIXTURES / name) for name, spec in (PAIRS | IMAGES).items()}


def expected(name):
    """Inputs of a checkpoint and what its own tool computes of them."""
    with np.load(FIXTURES / name / "expected.npz") as file:
        return dict(file)
