import os
import sys

import pytest

from classact import environments
from classact.launch.assembly import gpu_advice
from classact.launch.commands import cli, doctor
from classact.launch.engines import accelerators, sockets
from classact.replay import unix_listener

pytestmark = pytest.mark.usefixtures("clean_flags")


def test_all_is_looked_at_and_a_run_can_work(capsys):
    assert cli.main(["classact", "doctor"]) == 0
    said = capsys.readouterr().out
    for words in (
        "jax ",
        "dm-reverb 0",
        "dm-launchpad 0",
        "cpu",
        "slurm",
        "ray",
        "--isolate",
        "disk",
        "CPUs",
    ):
        assert words in said
    assert str(environments.replay_python()) in said
    assert "BAD" not in said and said.endswith("can work.\n")


def test_what_is_missing_fails_and_is_said_with_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    for part in (environments.LAUNCHPAD, environments.REPLAY):
        monkeypatch.delenv(part.variable, raising=False)
    monkeypatch.setattr(doctor, "examine", lambda: [*doctor.replay_server(), *doctor.launchpad()])
    assert cli.main(["classact", "doctor"]) == 1
    said = capsys.readouterr().out
    assert said.count("BAD") == 3 and said.count("→ classact setup") == 2
    assert said.endswith("cannot work: see BAD above.\n")


def test_a_python_without_reverb_is_found_out(monkeypatch):
    monkeypatch.setenv(environments.REPLAY.variable, sys.executable)
    there, versions, fails = doctor.replay_server()
    assert there.good is False and "dm-reverb MISSING" in versions.text
    assert fails.good is False and "is not installed" in fails.text


def test_a_platform_that_is_not_there_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    finding = next(iter(doctor.devices()))
    assert finding.good is False and "JAX_PLATFORMS" in finding.advice


def test_gpus_are_listed_with_how_to_divide_them(monkeypatch):
    two = '[["gpu", "NVIDIA H200"], ["gpu", "NVIDIA H200"]]'
    monkeypatch.setattr(doctor, "_answer", lambda command, **variables: doctor._Answer([two]))
    found = accelerators.Found((accelerators.Gpu("0", "NVIDIA H200"), accelerators.Gpu("1", "NVIDIA H200")))
    monkeypatch.setattr(accelerators, "found", lambda: found)
    monkeypatch.setattr(gpu_advice, "_MODELS", (("vit_ti", "vit_mu_1_1"),))
    said = [finding.text for finding in doctor.devices()]
    assert "JAX computes on 2 × gpu (NVIDIA H200)" in said and "GPUs: 2: NVIDIA H200" in said
    assert said[-1].split()[:2] == ["vit_ti", "vit_mu_1_1"] and "learner.gpus=1 inference.gpus=1" in said[-1]


def test_a_folder_that_is_open_to_others_is_found_out(monkeypatch, tmp_path_factory):
    # A long one would be passed over.
    tmp_path = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(sockets.tempfile, "tempdir", str(tmp_path))
    assert next(iter(doctor.network())).good is True
    (folder,) = tmp_path.iterdir()
    folder.chmod(0o777)
    finding = next(iter(doctor.network()))
    assert finding.good is False and "TMPDIR" in finding.advice


def test_a_kernel_on_which_the_replay_would_not_serve_is_found_out(monkeypatch):
    assert [f.good for f in doctor.network() if "replay" in f.text] == [True]
    monkeypatch.setattr(unix_listener, "is_possible", lambda: False)
    (finding,) = [f for f in doctor.network() if "replay" in f.text]
    assert finding.good is False and "/proc/self/fdinfo" in finding.advice


def test_a_cluster_whose_commands_are_not_here_is_no_fault(monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    findings = {finding.text.partition(":")[0]: finding for finding in doctor.launches()}
    assert findings["slurm"].good is None and "sbatch" in findings["slurm"].text
