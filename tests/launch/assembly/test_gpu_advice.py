"""What `classact doctor` says of a machine's GPUs."""

import pytest

from classact.launch.assembly import gpu_advice
from classact.launch.engines.accelerators import Found, Gpu


def test_a_division_follows_the_cost_of_scoring():
    """By the ledger: 2 · 2 · F(Ti) of 3 · F(B) + 3 · F(Ti) + 2 · 2 · F(Ti), with 1.254 and 17.56 GMACs."""
    found = gpu_advice.suggestion("vit_b", "vit_ti", 8)
    scoring = 4 * 1.254
    assert found.scoring == pytest.approx(scoring / (3 * 17.56 + 3 * 1.254 + scoring), rel=1e-2)
    assert (found.learner_gpus, found.scoring_gpus) == (7, 1)
    # A scorer as large as the learner: 4 · F of 10 · F.
    found = gpu_advice.suggestion("vit_ti", "vit_ti", 8)
    assert (found.scoring, found.learner_gpus, found.scoring_gpus) == (0.4, 5, 3)


def test_one_gpu_is_shared():
    found = gpu_advice.suggestion("vit_ti", "vit_mu_1_1", 1)
    assert (found.learner_gpus, found.scoring_gpus) == (0.75, 0.25)


def test_the_lines_name_the_gpus_and_the_fields(monkeypatch):
    monkeypatch.setattr(gpu_advice, "_MODELS", (("vit_ti", "vit_mu_1_1"),))
    eight = Found(tuple(Gpu(str(index), "NVIDIA H200", 151.0) for index in range(8)))
    said = gpu_advice.lines(eight)
    assert said[0] == "GPUs: 8: NVIDIA H200 151 GB"
    assert "  CUDA_VISIBLE_DEVICES=7 (NVIDIA H200, 151 GB)" in said
    assert any("vit_mu_1_1" in line and "learner.gpus=7 inference.gpus=1" in line for line in said)


def test_none_is_said_with_the_reason():
    assert gpu_advice.lines(Found((), "no driver")) == ("GPUs: none (no driver)",)
