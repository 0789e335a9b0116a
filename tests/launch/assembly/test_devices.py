"""The learner's devices against the configuration, before anything starts."""

import os
import pathlib
import subprocess
import sys

import pytest

from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.launch.assembly import devices
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.engines import registry
from classact.launch.engines.accelerators import Found, Gpu


@pytest.fixture
def jax_says(monkeypatch):
    """Sets what JAX says of the devices in another process; gives how often it is asked."""
    asked = []

    def answer(said, status=0, complaint=""):
        def run(command, **_):
            asked.append(command)
            return subprocess.CompletedProcess(command, status, said, complaint)

        monkeypatch.setattr(devices.jax_devices.subprocess, "run", run)
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


@pytest.fixture
def machine(monkeypatch):
    """Makes a machine of some GPUs, whose JAX finds those that are visible to it."""

    def make(*names, why="", jax="gpu"):
        found = Found(tuple(map(Gpu, names)), why)
        monkeypatch.setattr(devices.accelerators, "found", lambda: found)

        def run(command, env, **_):
            visible = [name for name in env["CUDA_VISIBLE_DEVICES"].split(",") if name]
            said = f"{jax} {len(visible)}" if visible else "cpu 1"
            return subprocess.CompletedProcess(command, 0, said, "")

        monkeypatch.setattr(devices.jax_devices.subprocess, "run", run)

    return make


def placed(engine="processes", **changes):
    """Places a run that scores; gives the placement and what is said of it."""
    fields = {**base.get_config().to_dict(), "policy": "hard_learner", "batch_size": 64}
    for kind, gpus in changes.pop("gpus", {}).items():
        fields["resources"][kind]["gpus"] = gpus
    fields.update(changes)
    said = FirstLines()
    config = resolution.resolve(fields)
    runs = registry.get(engine)
    runs.check(config)
    return devices.place(config, runs, None, said), said.lines()


def test_each_nodes_process_sees_its_own_gpus(machine):
    machine("0", "1", "2", "3")
    found, said = placed(gpus={"learner": 2.0, "inference": 1.0})
    assert found.environment("learner", 0)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert found.environment("inference/icons", 0)["CUDA_VISIBLE_DEVICES"] == "2"
    none = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    nodes = ("evaluator/test", "replay/icons", "run_loop/icons")
    assert all(found.environment(node, 0) == none for node in nodes)
    assert said == ("GPUs: learner 0, 1; inference/icons 2; all other nodes compute on the CPU",)


def test_one_gpu_is_shared_by_default(machine):
    machine("GPU-5a")
    found, said = placed()
    assert found.environment("learner", 0)["CUDA_VISIBLE_DEVICES"] == "GPU-5a"
    assert said[0].startswith("GPUs: learner 75% of GPU-5a; inference/icons 25% of GPU-5a; all other")


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (
            6,
            {"gpus": {"learner": 6.0, "inference": 1.0}},
            "asked for 7 GPUs of 6: learner 6, inference/icons 1",
        ),
        (3, {"gpus": {"learner": 3.0, "inference": 0.0}}, "batch_size=64 .* divisible by 3"),
        (
            4,
            {"gpus": {"learner": 2.0}, "mesh": {"hosts": 1, "fsdp": 4}},
            r"mesh\.fsdp=4: must divide .* 2 a host",
        ),
        (0, {"gpus": {"inference": 0.5}}, r"resources\.inference\.gpus=0\.5: there are 0 GPUs: no driver"),
        (2, {"engine": "threads", "gpus": {"learner": 1.0}}, "must be -1 with this launch, one process"),
        (2, {"engine": "slurm", "gpus": {"inference": 0.5}}, "must be a whole number with --launch=slurm"),
        (2, {"engine": "synchronous", "gpus": {"learner": 1.0}}, "must be -1 with this launch, one process"),
    ],
)
def test_gpus_that_cannot_be_given_are_refused(machine, names, changes, message):
    machine(*map(str, range(names)), why="no driver")
    with pytest.raises(ConfigError, match=message):
        placed(**changes)


def test_a_limit_of_the_users_own_is_named_with_what_it_leaves(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    machine("2", "3")
    with pytest.raises(ConfigError, match=r"asked for 4 .* there are: 2, 3 \(CUDA_VISIBLE_DEVICES=2,3\)"):
        placed(gpus={"learner": 4.0, "inference": 0.0})


def test_gpus_that_jax_does_not_find_are_no_silent_cpu(machine):
    machine("0", jax="cpu")
    with pytest.raises(ConfigError, match="JAX finds 1 cpu with CUDA_VISIBLE_DEVICES=0 "):
        placed()


def test_a_learner_without_gpus_is_asked_for_by_a_zero(machine):
    machine("0")
    found, _ = placed(gpus={"learner": 0.0, "inference": 1.0})
    assert found.environment("learner", 0)["JAX_PLATFORMS"] == "cpu"


def test_a_machine_without_gpus_is_left_as_it_is(machine, jax_says):
    machine(why="none")
    jax_says("cpu 1")
    found, said = placed()
    assert found == devices.Placement() and found.environment("learner", 0) == {} and not said


def test_a_tpu_is_the_learners(machine, jax_says, monkeypatch):
    machine(why="none")
    monkeypatch.setattr(devices.accelerators, "has_tpu_library", lambda: True)
    jax_says("tpu 4\n")
    found, said = placed()
    assert found.environment("learner", 0) == {}
    assert found.environment("inference/icons", 0) == {"JAX_PLATFORMS": "cpu"}
    assert said[0].startswith("TPU: the learner has all")
    with pytest.raises(ConfigError, match=r"mesh\.hosts=2: must be 1 .* with a TPU"):
        placed(mesh={"hosts": 2, "fsdp": 1})


def test_a_cluster_divides_its_hosts_gpus_itself(machine):
    machine("0")
    assert placed("ray", gpus={"inference": 0.5})[0] == devices.Placement()


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
