"""What GPUs there are, with made-up machines: a program named nvidia-smi stands in for the driver's."""

import importlib.metadata

import pytest

from classact.launch.engines import accelerators
from classact.launch.engines.accelerators import Gpu, parse, select

# Out of order, as nothing promises one.
SAID = """\
1, GPU-bbbb2222-0000-0000-0000-000000000000, NVIDIA H200, 143771
0, GPU-aaaa1111-0000-0000-0000-000000000000, NVIDIA H200, 143771
2, GPU-bbbb3333-0000-0000-0000-000000000000, NVIDIA GB10, [N/A]
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine whose nvidia-smi says something, or that has none; with JAX for CUDA."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)
    plugin = importlib.metadata.EntryPoint("xla_cuda12", "jax_plugins.xla_cuda12", "jax_plugins")
    monkeypatch.setattr(accelerators.importlib.metadata, "entry_points", lambda group: [plugin])
    monkeypatch.setattr(accelerators, "_DEVICE_FILES", tmp_path / "dev")
    (tmp_path / "dev").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(said=None, status=0):
        if said is not None:
            program = tmp_path / "nvidia-smi"
            lines = "".join(f"echo '{line}'\n" for line in said.splitlines())
            program.write_text(f"#!/bin/sh\n{lines}exit {status}\n")
            program.chmod(0o755)
        return tmp_path / "dev"

    return make


def test_gpus_are_listed_by_their_numbers():
    first, second, third = parse(SAID)
    assert (first.name, first.model, first.uuid[:8]) == ("0", "NVIDIA H200", "GPU-aaaa")
    assert second.name == "1" and str(second) == "1 (NVIDIA H200, 151 GB)"
    assert third.memory_gb == 0 and str(third) == "2 (NVIDIA GB10)"
    assert parse("No devices were found\n") == []


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("0,1,2", ["0", "1", "2"]),
        ("2, 0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["0"]),
        ("1,1", []),
        ("0,GPU-aaaa1111", []),
        ("GPU-bbbb3,GPU-aaaa1111-0000", ["GPU-bbbb3", "GPU-aaaa1111-0000"]),
        ("GPU-bbbb", []),
        ("MIG-1234-5,MIG-1234-6", ["MIG-1234-5", "MIG-1234-6"]),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(visible, names):
    assert [gpu.name for gpu in select(visible, parse(SAID))] == names


def test_without_a_list_what_could_be_a_device_counts():
    assert [gpu.name for gpu in select("3,GPU-12,x,4", None)] == ["3", "GPU-12"]


def test_a_machines_gpus_are_found(machine):
    machine(SAID)
    found = accelerators.found()
    assert [gpu.name for gpu in found.gpus] == ["0", "1", "2"]
    # nvidia-smi counts by the bus, and CUDA by speed unless it is told.
    assert found.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_what_the_user_or_slurm_has_set_is_kept_to(machine, monkeypatch):
    machine(SAID)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb2222,0")
    found = accelerators.found()
    assert [gpu.name for gpu in found.gpus] == ["GPU-bbbb2222", "0"] and found.environment == {}
    assert found.gpus[0].model == "NVIDIA H200"


@pytest.mark.parametrize(
    ("said", "environment", "why"),
    [
        (SAID, {"JAX_PLATFORMS": "cpu"}, "JAX_PLATFORMS=cpu"),
        (SAID, {"CUDA_VISIBLE_DEVICES": "9"}, "CUDA_VISIBLE_DEVICES='9' leaves none of 3"),
        ("No devices were found", {}, "no NVIDIA GPU"),
        (None, {}, "no driver"),
    ],
)
def test_none_has_a_reason(machine, said, environment, why):
    machine(said)
    found = accelerators.found(environment)
    assert not found.gpus and why in found.why


def test_a_driver_that_fails_is_no_driver(machine):
    machine("Unable to determine the device handle for GPU", status=15)
    assert not accelerators.found().gpus


def test_a_container_without_nvidia_smi_counts_device_files(machine):
    """CUDA counts those it is given from 0, whatever their files are called."""
    files = machine()
    for name in ("nvidia3", "nvidia5", "nvidiactl", "nvidia-uvm", "null"):
        (files / name).touch()
    assert accelerators.found().gpus == (Gpu("0"), Gpu("1"))


def test_jax_without_cuda_uses_none(machine, monkeypatch):
    machine(SAID)
    monkeypatch.setattr(accelerators.importlib.metadata, "entry_points", lambda group: [])
    found = accelerators.found()
    assert not found.gpus and "pip install 'classact[cuda]'" in found.why
