"""Runs programs on a Ray cluster of three hosts, which are raylets of this machine."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import program_runs
import psutil
import puppets
import pytest
import ray_machines

from classact.launch.assembly.launchpad import lp
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.ray.run import run_actors

ROOT = Path(__file__).resolve().parents[4]
NAMES = ("learner", "run_loop-icons")
CLASSACT = [sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()"]
SMALL = [
    f"--config={ROOT / 'experiments' / 'configs' / 'classification.py'}",
    "--config.train_data=digits",
    "--config.patch_size=4",
    "--config.learner.model=vit_mu_1_1",
    "--config.scorer.model=vit_mu_1_1",
    "--config.batch_size=32",
    "--config.log_every=10",
    "--config.evaluation.every=20",
]


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    with ray_machines.Machines(tmp_path_factory.mktemp("r")) as machines:
        yield machines


def environment(machines, folder):
    return {
        **machines.environment,
        "PYTHONPATH": str(folder),
        "JAX_PLATFORMS": "cpu",
        "PASSWORD": "stays here",
    }


@pytest.fixture
def stage():
    stage = puppets.Stage()
    yield stage
    stage.close()


@contextlib.contextmanager
def launcher(machines, workdir, stage, per_hour=0, notice=8):
    command = [sys.executable, ray_machines.__file__, "launch", str(workdir)]
    command += [str(number) for number in (stage.port, per_hour, notice)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(machines, workdir), cwd=workdir.parent
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def outcome_of(process):
    said, _ = process.communicate(timeout=60)
    # Ray says of itself when it loses a host.
    return json.loads(said.splitlines()[-1])


@contextlib.contextmanager
def training(machines, folder, name, *arguments):
    with subprocess.Popen(
        [*CLASSACT, "train", *SMALL, f"--workdir={folder / name}", *arguments],
        env=environment(machines, folder),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def nodes_of(folder):
    """The processes of a run's nodes by what they read: one file a group."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            for argument in process.cmdline():
                if argument.startswith(f"--data_file={folder}"):
                    found[Path(argument).stem] = process
    return found


def wait_for(path, process, seconds=120):
    """Waits until a running process has made a file with something in it."""
    for _ in range(seconds * 10):
        if path.exists() and path.stat().st_size:
            return
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise AssertionError(f"no {path.name} within {seconds} s")


def test_a_run_completes_on_three_hosts(machines, tmp_path):
    workdir = tmp_path / "run"
    with training(
        machines, tmp_path, "reference", "--config.policy=uniform", "--config.steps=10",
        "--launch=synchronous",
    ) as process:  # fmt: skip
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    with training(
        machines, tmp_path, "run", "--launch=ray", "--config.policy=classact", "--config.steps=120",
        # Relative: the nodes must start where the launcher did.
        "--config.reference.checkpoint=reference",
        "--config.cluster.learner.gpus=1", "--config.cluster.learner.partition=trainer",
    ) as process:  # fmt: skip
        wait_for(workdir / "endpoints.json", process)
        wait_for(workdir / "metrics" / "evaluator-test.jsonl", process)
        nodes = nodes_of(workdir)
        hosts = {name: machines.host_of(node.pid) for name, node in nodes.items()}
        environments = {name: node.environ() for name, node in nodes.items()}
        said, errors = process.communicate(timeout=120)

    assert process.returncode == 0, errors
    assert said.splitlines()[-1].startswith("completed: ")
    assert set(hosts) == {"learner", "replay-digits", "inference-digits", "evaluator-test"}
    assert hosts["learner"] == "127.0.0.4" and set(hosts.values()) == set(machines.hosts)
    gpus = {name: environment["CUDA_VISIBLE_DEVICES"] for name, environment in environments.items()}
    assert gpus == {**dict.fromkeys(hosts, ""), "learner": "0"}
    assert not any("PASSWORD" in environment for environment in environments.values())
    for label, (address,) in json.loads((workdir / "endpoints.json").read_text()).items():
        assert address.split(":")[0] == hosts[label.replace("/", "-")]
    result = json.loads((workdir / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 120)
    assert set(result["cpu_seconds_by_node"]) == set(result["peak_bytes_by_node"]) == set(hosts)
    # A replay's node and its server load neither JAX nor TensorFlow.
    assert all(seconds > 0.2 for seconds in result["cpu_seconds_by_node"].values())
    assert result["peak_bytes"] == sum(result["peak_bytes_by_node"].values()) > 5e8
    assert {path.stem for path in (workdir / "logs").iterdir()} == set(hosts)
    assert sorted(path.name for path in workdir.iterdir() if path.name.startswith((".shared", "tasks"))) == []
    assert not nodes_of(workdir)


def test_every_node_that_hangs_is_started_again(machines, tmp_path):
    lasting = ["--config.steps=300", "--config.checkpoint_every=50", "--config.hung_seconds=10"]
    with training(
        machines, tmp_path, "run", "--launch=ray", "--config.policy=hard_learner", *lasting
    ) as process:
        stopped = program_runs.hang_every_node(tmp_path / "run", process, tmp_path / "run" / "result.json")
        _, errors = process.communicate(timeout=240)

    assert process.returncode == 0, errors
    assert stopped == {"replay-digits", "learner", "inference-digits", "evaluator-test"}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 300)
    assert result["restarts"] == dict.fromkeys(stopped, 1)
    for name in stopped:
        assert re.search(rf"task {name} was silent for 1\d s; it last said, .*, and was killed", errors)


def test_sigterm_interrupts_a_run(machines, tmp_path):
    arguments = ["--launch=ray", "--config.policy=uniform", "--config.steps=100000"]
    with training(machines, tmp_path, "run", *arguments) as process:
        wait_for(tmp_path / "run" / "metrics" / "learner.jsonl", process)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1].startswith("interrupted: ")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["message"]) == ("interrupted", "stopped by SIGTERM")
    assert not nodes_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (
            "replay.cpus=3",
            r"no host has room for replay/digits 0, which needs 3 CPUs; left are: 127\.0\.0\.2#\w{6} \(2 CPU",
        ),
        # The largest one.
        ("hosts=1", r"no host has room for .*; left are: 127\.0\.0\.4#\w{6} \(0 CPUs, \S+ GB, 1 GPUs\)\n$"),
    ],
)
def test_what_fits_nowhere_is_refused(machines, tmp_path, field, says):
    arguments = ["--launch=ray", "--config.policy=uniform", f"--config.cluster.{field}"]
    with training(machines, tmp_path, "run", *arguments) as process:
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert re.search(f"classact: {says}", errors)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        # Nobody listens on this port.
        ("127.0.0.2:1", "no Ray cluster answers at 127.0.0.2:1; start one"),
        ("nonsense", "no Ray cluster found with RAY_ADDRESS='nonsense'; start one"),
        ("local", "RAY_ADDRESS='local' is no cluster that this machine is part of; start one"),
        ("ray://127.0.0.2:10001", "RAY_ADDRESS='ray://127.0.0.2:10001'"),
    ],
)
def test_an_address_without_a_cluster_is_refused(tmp_path, monkeypatch, address, says):
    monkeypatch.setenv("RAY_ADDRESS", address)
    program = lp.Program("none")
    program.add_node(lp.PyNode(print), label="learner")
    with pytest.raises(LaunchError, match=re.escape(says)):
        run_actors(puppets.job_of(program, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_crash_ends_the_run_with_its_traceback(machines, tmp_path, stage):
    with launcher(machines, tmp_path / "run", stage) as process:
        learner, run_loop = stage.await_puppets(*NAMES)
        assert run_loop.ask("call 21") == "42"
        assert [machines.host_of(node.pid) for node in (learner, run_loop)] == ["127.0.0.4", "127.0.0.3"]
        learner.tell("wait")
        run_loop.tell("crash ouch")
        found = outcome_of(process)

    assert process.returncode == 1
    assert (found["status"], found["failed_task"]) == ("failed", "run_loop-icons")
    assert found["traceback"].endswith("ToldToCrash: ouch")
    # The stop reached the other node as a signal.
    assert found["ends"]["learner"] == [0, False]
    assert "saw the stop event" in (tmp_path / "run" / "logs" / "learner.log").read_text()


def test_a_killed_a_hung_node_and_a_killed_actor_are_started_again_on_their_host(machines, tmp_path, stage):
    with launcher(machines, tmp_path / "run", stage, per_hour=2) as process:
        learner, run_loop = stage.await_puppets(*NAMES)
        os.kill(run_loop.pid, signal.SIGKILL)
        (run_loop,) = stage.await_puppets(NAMES[1])
        assert run_loop.ask("call 21") == "42"
        # The process of its actor.
        psutil.Process(run_loop.pid).parent().kill()
        (run_loop,) = stage.await_puppets(NAMES[1])
        assert run_loop.ask("call 21") == "42"
        assert machines.host_of(run_loop.pid) == "127.0.0.3"
        # It hangs.
        os.kill(learner.pid, signal.SIGSTOP)
        (learner,) = stage.await_puppets(NAMES[0])
        learner.tell("return")
        found = outcome_of(process)

    assert process.returncode == 0
    assert (found["status"], found["restarts"]) == (
        "completed",
        {"run_loop-icons": 2, "learner": 1},
    )
    assert set(found["ends"]) == {"learner", "inference-icons", "run_loop-icons"}


def test_the_learner_stops_first(machines, tmp_path, stage):
    with launcher(machines, tmp_path / "run", stage, notice=60) as process:
        learner, run_loop = stage.await_puppets(*NAMES)
        learner.tell("last_words")
        process.send_signal(signal.SIGTERM)
        assert learner.hear() == "asked to stop"
        assert run_loop.ask("stopped") == "False"
        learner.tell("return")
        learner.wait_until_gone(10)
        run_loop.tell("wait")
        found = outcome_of(process)

    assert process.returncode == 128 + signal.SIGTERM
    assert found["ends"]["learner"] == found["ends"]["run_loop-icons"] == [0, False]


def test_a_second_signal_ends_what_is_deaf(machines, tmp_path, stage):
    with launcher(machines, tmp_path / "run", stage) as process:
        learner, run_loop = stage.await_puppets(*NAMES)
        learner.tell("wait")
        run_loop.ask("deaf")
        process.send_signal(signal.SIGINT)
        learner.wait_until_gone(10)
        process.send_signal(signal.SIGINT)
        found = outcome_of(process)

    assert process.returncode == 128 + signal.SIGINT
    assert (found["status"], found["message"]) == ("interrupted", "stopped by SIGINT")
    assert found["ends"]["run_loop-icons"] == [-signal.SIGKILL, True]


def test_a_signal_while_actors_start_ends_the_run(machines, tmp_path, stage):
    with launcher(machines, tmp_path / "run", stage) as process:
        while not list(tmp_path.glob("run/.shared*")):
            assert process.poll() is None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        process.send_signal(signal.SIGTERM)
        found = outcome_of(process)

    assert process.returncode == 128 + signal.SIGTERM
    assert (found["status"], found["message"]) == ("interrupted", "stopped by SIGTERM")
    assert not list(tmp_path.glob("run/.shared*"))


def test_a_killed_launcher_leaves_no_node(machines, tmp_path, stage):
    with launcher(machines, tmp_path / "run", stage) as process:
        nodes = stage.await_puppets(*NAMES)
        nodes[1].ask("deaf")
        process.kill()
        for node in nodes:
            node.wait_until_gone(20)


def test_a_lost_host_ends_the_run(machines, tmp_path, stage):
    with launcher(machines, tmp_path / "run", stage) as process:
        learner, run_loop = stage.await_puppets(*NAMES)
        learner.tell("wait")
        machines.remove("127.0.0.3")
        run_loop.wait_until_gone(20)
        found = outcome_of(process)

    assert process.returncode == 1
    assert (found["status"], found["failed_task"]) == ("failed", "run_loop-icons")
    assert "task run_loop-icons was lost with its actor on 127.0.0.3: " in found["message"]
    assert found["ends"] == {"inference-icons": found["ends"]["inference-icons"], "learner": [0, False]}
