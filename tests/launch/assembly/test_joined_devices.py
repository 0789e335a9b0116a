"""Who joins a run keeps off the GPUs that the run may have."""

import jax
import pytest

from classact.launch.assembly import joined_devices
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.engines.accelerators import Found, Gpu

CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def machine(monkeypatch):
    """Makes a machine of some GPUs; gives what JAX is told in this process."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)

    def make(*names):
        found = Found(tuple(map(Gpu, names)))
        monkeypatch.setattr(joined_devices.accelerators, "found", lambda: found)
        return told

    return make


def test_an_evaluator_keeps_off_gpus_that_nobody_named(machine, monkeypatch):
    told, said = machine("0"), FirstLines()
    joined_devices.keep_off(said)
    assert told == {"jax_platforms": "cpu"} and "CUDA_VISIBLE_DEVICES says which" in said.lines()[0]
    told.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    joined_devices.keep_off(said)
    assert not told


def test_without_gpus_there_is_nothing_to_keep_off(machine):
    told, said = machine(), FirstLines()
    joined_devices.keep_off(said)
    assert not told and not said.lines()
    assert joined_devices.environments(["inference/a"], said) == {"inference/a": {}}


def test_actors_keep_off_too(machine):
    machine("0", "1")
    said = FirstLines()
    assert joined_devices.environments(["inference/a"], said) == {"inference/a": CPU}
    assert "computes on the CPU" in said.lines()[0]


def test_actors_divide_the_gpus_that_are_named(machine, monkeypatch):
    machine("4", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    said = FirstLines()
    found = joined_devices.environments(["inference/a", "inference/b"], said)
    assert [found[label]["CUDA_VISIBLE_DEVICES"] for label in found] == ["4", "5"]
    assert said.lines() == ("GPUs: inference/a 4; inference/b 5",)
    shared = joined_devices.environments(["inference/a", "inference/b", "inference/c"], said)
    assert [item["CUDA_VISIBLE_DEVICES"] for item in shared.values()] == ["4", "4", "5"]
    assert len({item["XLA_PYTHON_CLIENT_MEM_FRACTION"] for item in shared.values()}) == 1
