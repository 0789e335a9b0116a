"""The accelerator's benchmark, at small sizes on a CPU."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(_FOLDER))

import accelerator  # noqa: E402
import accelerator_parts  # noqa: E402
import device_timing  # noqa: E402

SMALL = [
    "--learner=vit_mu_2_1", "--scorers=vit_mu_1_1", "--image-size=8", "--patch-size=4", "--classes=3",
    "--batch-size=4", "--sweep=4,8", "--part-seconds=0.05",
]  # fmt: skip

# Runs with what the benchmark may need; any other import fails.
_ALONE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED or name.startswith(("classact.launch", "classact.replay")):
            raise ImportError(f"{name} is not to be needed")

REFUSED = {"launchpad", "reverb", "tensorflow", "courier", "haiku", "tensorboardX", "ml_collections", "grpc",
           "zmq", "sklearn", "PIL", "psutil", "matplotlib", "tokenizers", "tree"}
sys.meta_path.insert(0, Refuse())
import accelerator
sizes = accelerator.sizes_of(accelerator.parser().parse_args(sys.argv[1:]))
accelerator.Benchmark(sizes, accelerator.Budget(1.0))
"""


@pytest.fixture(autouse=True)
def standard_promotion(monkeypatch):
    """In bfloat16 flax's LayerNorm casts silently, as users' processes let it."""
    monkeypatch.setenv("JAX_NUMPY_DTYPE_PROMOTION", "standard")
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_all_parts_are_measured(tmp_path, capsys):
    out = tmp_path / "found.json"
    cache = jax.config.jax_compilation_cache_dir
    accelerator.main([*SMALL, "--peak-tflops=2", f"--out={out}"])
    # What is compiled after it is kept where it was before.
    assert jax.config.jax_compilation_cache_dir == cache
    found = json.loads(out.read_text())
    assert found["platform"] == "cpu" and not found["left_out"]
    rows = {(row["part"], row["batch"]): row for row in found["rows"]}
    parts = ["update", "update + online", "loop"]
    assert set(rows) == {*((part, 4) for part in parts), ("score", 8), ("forward", 4), ("forward", 8)}
    for row in found["rows"]:
        assert 0 < row["low"] <= row["seconds"] <= row["high"] and row["compile_seconds"] > 0
        assert row["examples_per_second"] == pytest.approx(row["batch"] / row["seconds"])
        assert row["mfu"] == pytest.approx(2 * row["macs"] / row["seconds"] / 2e12)
        assert row["part"] == "loop" or row["memory_bytes"] > 4 * 8 * 8 * 3
    learner, scorer = found["forward_macs"]["vit_mu_2_1"], found["forward_macs"]["vit_mu_1_1"]
    assert rows["update", 4]["macs"] == 3 * learner * 4
    assert rows["score", 8]["macs"] == 2 * scorer * 8
    assert rows["loop", 4]["macs"] == 3 * (learner + scorer) * 4 + 2 * scorer * 8
    assert rows["forward", 8]["macs"] == scorer * 8
    alone = rows["score", 8]["seconds"] + rows["update + online", 4]["seconds"]
    assert rows["loop", 4]["not_the_devices"] == pytest.approx(1 - alone / rows["loop", 4]["seconds"])
    said = capsys.readouterr().out
    assert "peak 2 TFLOP/s" in said and "of the time not the device's" in said
    assert all(f"{row['part']:<16} {row['model']:<12} {row['batch']:>6}" in said for row in found["rows"])


def test_it_needs_neither_launchpad_nor_reverb_nor_what_the_nodes_need():
    command = [sys.executable, "-c", _ALONE, *SMALL]
    done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def benchmark(seconds=60.0, clock=lambda: 0.0):
    sizes = accelerator.sizes_of(accelerator.parser().parse_args(SMALL))
    return accelerator_parts.Benchmark(sizes, device_timing.Budget(seconds, clock))


def test_a_batch_that_does_not_fit_is_a_row_and_another_error_is_one(monkeypatch):
    measured = benchmark()

    def full(self, row):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    def broken(self, row):
        raise jax.errors.JaxRuntimeError("INTERNAL: no kernel image is available")

    for name in ("_update", "_score", "_loop", "_forward"):
        monkeypatch.setattr(accelerator_parts.Benchmark, name, full)
    measured.run()
    report = measured.report()
    assert {row["note"] for row in report["rows"]} == {"does not fit the device's memory"}
    assert (
        accelerator.table({**report, "wall_seconds": 1.0}).count("does not fit") == len(report["rows"]) == 6
    )
    monkeypatch.setattr(accelerator_parts.Benchmark, "_update", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no kernel image"):
        benchmark().run()


def test_what_there_is_no_time_for_is_listed(monkeypatch):
    """Each part takes 10 of 25 seconds: after the second one there is no time for another of its kind."""
    seconds = 0.0

    def clock():
        return seconds

    def part(self, row):
        nonlocal seconds
        seconds += 10.0

    for name in ("_update", "_score", "_loop", "_forward"):
        monkeypatch.setattr(accelerator_parts.Benchmark, name, part)
    measured = benchmark(25.0, clock)
    measured.run()
    assert [row.part for row in measured.rows] == ["update", "score"]
    assert measured.skipped == [
        "update + online vit_mu_1_1 4",
        "loop vit_mu_1_1 4",
        "forward vit_mu_1_1 4",
        "forward vit_mu_1_1 8",
    ]
    assert "not measured, for want of time: update + online" in accelerator.table(measured.report())


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("Tesla V100-SXM2-16GB", 125.0),
        ("TPU v5 lite", 197.0),
        ("TPU v4", 275.0),
        ("cpu", None),
        ("NVIDIA L400", None),
    ],
)
def test_peak_rates_are_known_by_the_devices_name(kind, peak):
    assert device_timing.peak_tflops(kind) == peak


def test_calls_are_handed_over_together_after_a_warm_up():
    made = []

    def call():
        made.append(len(made))
        return np.zeros(1)

    timing = device_timing.time_calls(call, seconds=0.02, repeats=3)
    # Each has as many calls as fill its time, by one call's.
    assert timing.calls > 1 and 1 <= timing.repeats <= 3
    assert len(made) == 2 + timing.calls * timing.repeats
    assert timing.low <= timing.median <= timing.high
