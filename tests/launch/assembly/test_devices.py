"""The learner's devices against the configuration, before anything starts."""

import os
import pathlib
import subprocess
import sys

import pytest

from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.launch.assembly import devices


@pytest.fixture
def jax_says(monkeypatch):
    """Sets what JAX says of the devices in another process; gives how often it is asked."""
    asked = []

    def answer(said, status=0, complaint=""):
        def run(command, **_):
            asked.append(command)
            return subprocess.CompletedProcess(command, status, said, complaint)

        monkeypatch.setattr(devices.subprocess, "run", run)
        return asked

    return answer


def config(fsdp, hosts=1, batch_size=64):
    fields = {**base.get_config().to_dict(), "policy": "uniform", "batch_size": batch_size}
    return resolution.resolve({**fields, "mesh": {"hosts": hosts, "fsdp": fsdp}})


def test_devices_are_counted_only_where_there_may_be_several(jax_says, monkeypatch):
    asked = jax_says("gpu 8\n")
    devices.check(config(1, batch_size=3))
    assert not asked
    devices.check(config(4))
    devices.check(config(4, hosts=2))
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    devices.check(config(1))
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("said", "chosen", "message"),
    [
        ("gpu 8\n", {"fsdp": 3}, r"mesh\.fsdp=3: must divide .* 8 a host"),
        ("cpu 8\n", {"fsdp": 4, "hosts": 2}, r"mesh\.fsdp=4: must be 1 on the CPUs of several hosts"),
        ("gpu 8\n", {"fsdp": 4, "hosts": 2, "batch_size": 24}, "batch_size=24 .* divisible by 16"),
        ("what a plug-in prints\ngpu 6\n", {"fsdp": 1}, "batch_size=64 .* divisible by 6: .* 6 devices"),
    ],
)
def test_what_the_devices_cannot_share_is_refused(jax_says, monkeypatch, said, chosen, message):
    monkeypatch.setattr(devices.importlib.metadata, "entry_points", lambda group: ["a GPU's"])
    jax_says(said)
    with pytest.raises(ConfigError, match=message):
        devices.check(config(**chosen))


def test_jax_that_does_not_start_is_told(jax_says):
    jax_says("", 1, "Traceback\nRuntimeError: no such platform\n")
    with pytest.raises(ConfigError, match="does not find its devices: RuntimeError: no such platform"):
        devices.check(config(2))


def test_the_launcher_leaves_the_devices_to_the_learner(tmp_path):
    """Of all checks none needs JAX's devices: where there are none, the next thing to fail is Slurm."""
    command = [pathlib.Path(sys.executable).with_name("classact"), "train", "--launch=slurm"]
    command += ["--config=experiments/configs/classification.py", "--config.train_data=digits"]
    command += ["--config.patch_size=4", "--config.policy=classact_online", f"--workdir={tmp_path}/run"]
    environment = {**os.environ, "JAX_PLATFORMS": "nowhere", "PATH": str(tmp_path)}
    environment.pop("SLURM_JOB_ID", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "sbatch, scancel, scontrol, sinfo, srun not on PATH" in done.stderr
