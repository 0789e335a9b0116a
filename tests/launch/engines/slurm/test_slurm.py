"""Trains on a Slurm of three nodes, whose daemons run on this machine."""

import contextlib
import json
import os
import pathlib
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import program_runs
import puppets
import pytest
import slurm_cluster

from classact.launch.engines.interrupts import Interrupt
from classact.launch.engines.placement import Host, Needs
from classact.launch.engines.slurm import run as slurm
from classact.launch.engines.slurm.info import Allocation
from classact.launch.engines.slurm.steps import Steps
from classact.launch.engines.slurm.submitted import SubmittedJob
from classact.launch.engines.task import Task

ROOT = pathlib.Path(__file__).resolve().parents[4]
CONFIG = ROOT / "experiments" / "configs" / "classification.py"
CLASSACT = [sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()"]
SMALL = [
    "--config.train_data=digits",
    "--config.patch_size=4",
    "--config.learner.model=vit_mu_1_1",
    "--config.scorer.model=vit_mu_1_1",
    "--config.batch_size=32",
    "--config.steps=40",
    "--config.log_every=10",
    "--config.evaluation.every=20",
]
# Four one-CPU nodes on two hosts, the learner on the third.
THREE_HOSTS = [
    "--config.cluster.hosts=3",
    "--config.cluster.learner.partition=accelerator",
    "--config.cluster.learner.gpus=1",
]
MEMORY = [f"--config.cluster.{kind}.memory_gb=1" for kind in ("replay", "inference", "evaluator", "learner")]
ENDLESS = ["--config.policy=hard_learner", "--config.steps=100000"]
# A user's module, with a policy that returns nonsense after a while.
USER_POLICIES = """
import jax.numpy as jnp
from classact.selection import policies

broken = policies.Policy("broken", online="learner", score=lambda online, reference: online["loss"] * jnp.nan)
"""
# All of it takes three minutes on two idle cores.
pytestmark = pytest.mark.timeout(1200)
# What a loaded machine may take to start a program's processes and compile.
SECONDS = 400

reason = slurm_cluster.missing()
on_slurm = pytest.mark.skipif(bool(reason), reason=reason or "Slurm is here")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_cluster.SlurmCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        cluster.environment |= {"JAX_PLATFORMS": "cpu"}
        yield cluster


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that the launchers run in; its name has what must be quoted."""
    folder = tmp_path_factory.mktemp("runs") / "a folder"
    folder.mkdir()
    (folder / "user_policies.py").write_text(USER_POLICIES)
    return folder


def command(workdir, *arguments):
    return [
        *CLASSACT, "train", f"--config={CONFIG}", f"--workdir={workdir}", "--launch=slurm", *SMALL, *arguments
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def hangups_end_what_is_started():
    """What started the tests, `nohup` for instance, may have left SIGHUP ignored; children inherit it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def launched(cluster, place, name, *arguments):
    """A run by submission; whatever happens, the launcher ends with the context."""
    with (place / f"{name}.out").open("w") as out:
        process = subprocess.Popen(
            command(place / name, *arguments),
            env={**cluster.environment, "PYTHONPATH": str(place)},
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)


def ended(process, place, name):
    """The exit status and what was printed."""
    status = process.wait(SECONDS)
    return status, (place / f"{name}.out").read_text()


def result_of(place, name):
    return json.loads((place / name / "result.json").read_text())


def wait_for_text(path, text, process):
    """Waits until a file has a text in it, while a process runs."""
    deadline = time.monotonic() + SECONDS
    while not (path.exists() and text in path.read_text()):
        assert process.poll() is None, f"ended before {path} had {text!r}"
        assert time.monotonic() < deadline
        time.sleep(0.2)


def job_of(place, name):
    """Number of the job that was submitted for a run."""
    said = (place / f"{name}.out").read_text()
    return said.split("submitted job ")[1].split(";")[0]


def assert_logs_of_every_node(workdir, nodes):
    assert {path.stem for path in (workdir / "logs").glob("*.log")} == set(nodes)
    done = subprocess.run(
        [*CLASSACT, "logs", f"--workdir={workdir}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "inference-digits | " in done.stdout


@on_slurm
def test_a_submitted_run_trains_on_three_hosts_of_two_partitions(cluster, place):
    """ClassAct with a reference; the reference is trained inside an allocation, through the batch file."""
    # One after the other: the second needs the first.
    reference = ["--config.policy=uniform", "--config.steps=10", "--config.log_every=5"]
    batch = ["sbatch", "--wait", "--nodes=2", str(ROOT / "launch" / "engines" / "slurm" / "slurm.sbatch")]
    wrapper = place / "classact"
    wrapper.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c '
        '"from classact.launch.commands import cli; cli.entry_point()" "$@"\n'
    )
    wrapper.chmod(0o755)
    subprocess.run(
        [*batch, f"--config={CONFIG}", f"--workdir={place / 'reference'}", *SMALL, *reference],
        env={**cluster.environment, "CLASSACT": str(wrapper)},
        cwd=place,
        timeout=SECONDS,
        check=True,
    )
    assert result_of(place, "reference")["status"] == "completed"
    (said,) = place.glob("classact-*.out")
    assert "n1: " in said.read_text() and "n2: " in said.read_text()

    options = ["--config.policy=classact", f"--config.reference.checkpoint={place / 'reference'}"]
    with launched(cluster, place, "submitted", *options, *THREE_HOSTS, *MEMORY) as process:
        status, said = ended(process, place, "submitted")
    assert status == 0, said
    assert "n3: learner\n" in next((place / "submitted" / "slurm").glob("*.out")).read_text()
    result = result_of(place, "submitted")
    nodes = {"replay-digits", "learner", "inference-digits", "evaluator-test"}
    assert (result["status"], result["steps"]) == ("completed", 40)
    assert set(result["cpu_seconds_by_node"]) == set(result["peak_bytes_by_node"]) == nodes
    assert result["final"]["eval/test/top1"] > 0.15  # Chance is 0.1.
    assert (place / "submitted" / "checkpoints" / "40").is_dir()
    config = json.loads((place / "submitted" / "config.json").read_text())
    assert (config["launch"], config["cluster"]["replay"]["partition"]) == ("slurm", "cpu")
    endpoints = json.loads((place / "submitted" / "endpoints.json").read_text())
    assert set(endpoints) == {"learner", "replay/digits", "inference/digits"}
    # All hosts are this machine, so that every port must be another.
    assert len({address for (address,) in endpoints.values()}) == 3
    assert_logs_of_every_node(place / "submitted", nodes)
    assert not (place / "submitted" / "tasks").exists()
    assert cluster.jobs() == []


@on_slurm
def test_every_node_that_hangs_is_started_again(cluster, place):
    lasting = ["--config.steps=300", "--config.checkpoint_every=50", "--config.hung_seconds=10"]
    with launched(cluster, place, "hung", "--config.policy=hard_learner", *lasting, *THREE_HOSTS) as process:
        stopped = program_runs.hang_every_node(place / "hung", process, place / "hung.out")
        status, said = ended(process, place, "hung")
    assert status == 0, said
    result = result_of(place, "hung")
    assert stopped == {"replay-digits", "learner", "inference-digits", "evaluator-test"}
    assert (result["status"], result["steps"]) == ("completed", 300)
    assert result["restarts"] == dict.fromkeys(stopped, 1)
    (errors,) = (place / "hung" / "slurm").glob("*.err")
    for name in stopped:
        assert re.search(
            rf"task {name} was silent for 1\d s; it last said, .*, and was killed", errors.read_text()
        )


@on_slurm
def test_a_node_that_crashes_ends_the_run_with_its_traceback(cluster, place):
    with launched(cluster, place, "broken", "--config.policy=user_policies:broken") as process:
        status, said = ended(process, place, "broken")
    assert status == 1, said
    assert "scores are NaN" in said and "max_nonfinite_share" in said
    result = result_of(place, "broken")
    assert (result["status"], result["diverged"], result["restarts"]) == ("failed", 0, {})
    assert cluster.jobs() == []


@on_slurm
def test_two_runs_on_the_same_hosts_are_stopped_in_two_ways(cluster, place):
    with (
        launched(cluster, place, "cancelled", *ENDLESS, *THREE_HOSTS, *MEMORY) as cancelled,
        launched(cluster, place, "stopped", *ENDLESS, *THREE_HOSTS, *MEMORY) as stopped,
    ):
        for name, process in (("cancelled", cancelled), ("stopped", stopped)):
            wait_for_text(place / name / "metrics" / "learner.jsonl", "step", process)
        found = [
            json.loads((place / name / "endpoints.json").read_text()) for name in ("cancelled", "stopped")
        ]
        addresses = [address for run in found for several in run.values() for address in several]
        assert len(set(addresses)) == len(addresses) == 6
        steps = [job for job in cluster.jobs() if "." in job]
        assert len([step for step in steps if step.endswith("learner")]) == 2

        cluster.run("scancel", job_of(place, "cancelled"))
        stopped.send_signal(signal.SIGINT)
        assert ended(cancelled, place, "cancelled")[0] == 128 + signal.SIGTERM
        assert ended(stopped, place, "stopped")[0] == 128 + signal.SIGINT
    for name in ("cancelled", "stopped"):
        result = result_of(place, name)
        assert result["status"] == "interrupted" and "SIGTERM" in result["message"], result
        assert 0 < result["steps"] < 100_000
        assert not (place / name / "tasks").exists()
    cluster.wait_until_empty()


@on_slurm
def test_a_job_that_never_starts(cluster, place):
    hold = ["--config.policy=uniform", "--config.cluster.sbatch=--hold"]
    with (
        launched(cluster, place, "given_up", *hold) as given_up,
        launched(cluster, place, "lost", *hold) as lost,
        launched(cluster, place, "left", *hold) as left,
    ):
        for name, process in (("given_up", given_up), ("lost", lost), ("left", left)):
            wait_for_text(place / f"{name}.out", "pending (JobHeldUser)", process)
        given_up.send_signal(signal.SIGTERM)
        cluster.run("scancel", job_of(place, "lost"))
        status, said = ended(given_up, place, "given_up")
        assert status == 128 + signal.SIGTERM and "ended without a result: cancelled" in said
        status, said = ended(lost, place, "lost")
        assert status == 1 and "ended without a result: cancelled" in said
        # As when the terminal is closed.
        left.send_signal(signal.SIGHUP)
        status, said = ended(left, place, "left")
        assert status == 128 + signal.SIGHUP and "goes on" in said
        assert cluster.jobs() == [f"{job_of(place, 'left')} PENDING"]
        cluster.run("scancel", job_of(place, "left"))
    assert not (place / "lost" / "config.json").exists()
    cluster.wait_until_empty()


@on_slurm
def test_what_cannot_run_is_said_before_anything_starts(cluster, place):
    environment = {**cluster.environment, "PYTHONPATH": str(place)}

    def refused(*arguments, **changes):
        done = subprocess.run(
            command(place / "refused", "--config.policy=uniform", *arguments),
            env={**environment, **changes},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 2, done.stdout + done.stderr
        assert not (place / "refused").exists()
        (line,) = done.stderr.splitlines()[-1:]
        return line

    assert refused("--config.cluster.learner.partition=tpu").endswith(
        "cluster.learner.partition='tpu': the cluster has accelerator, cpu"
    )
    assert "sbatch, scancel, scontrol, sinfo, srun not on PATH" in refused(PATH="/nowhere")
    assert "sbatch failed" in refused("--config.cluster.sbatch=--reservation=none")
    # Inside an allocation, on hosts that are not enough.
    job = cluster.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 600").strip()
    try:
        deadline = time.monotonic() + 30
        while f"{job} RUNNING" not in cluster.jobs():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "no host has room for" in refused(SLURM_JOB_ID=job)
    finally:
        cluster.run("scancel", job)
    cluster.wait_until_empty()


@pytest.fixture
def stage():
    stage = puppets.Stage(SECONDS)
    yield stage
    stage.close()


def submitted(cluster, place, name, script, *options):
    """Number of a job that runs a script of bash; its output is in `<name>.out`."""
    path = place / f"{name}.sh"
    path.write_text(f"#!/bin/bash\n{script}\n")
    own = [
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--no-kill",
        f"--output={place}/{name}.out",
    ]
    return cluster.run("sbatch", "--parsable", *own, *options, str(path), cwd=place).strip()


@on_slurm
def test_a_hung_and_a_killed_node_are_started_again_and_a_cancelled_job_stops_its_learner_first(
    cluster, place, stage
):
    workdir = place / "puppets"
    launch = [sys.executable, puppets.__file__, "steps", str(workdir), str(stage.port)]
    job = submitted(cluster, place, "puppets", f"exec {shlex.join(launch)}", "--no-requeue")
    learner, run_loop = stage.await_puppets(*puppets.LAUNCHED)
    os.kill(run_loop.pid, signal.SIGKILL)
    (run_loop,) = stage.await_puppets("run_loop-icons")
    os.kill(learner.pid, signal.SIGSTOP)
    (learner,) = stage.await_puppets("learner")

    learner.tell("last_words")
    # To all steps; the batch script gets its own signal when they have ended, or never.
    cluster.run("scancel", job)
    assert learner.hear() == "asked to stop"
    assert run_loop.ask("stopped") == "False"
    learner.tell("return")
    learner.wait_until_gone(10)
    run_loop.tell("wait")
    run_loop.wait_until_gone(10)
    cluster.wait_until_empty()

    outcome = json.loads((workdir / "outcome.json").read_text())
    assert (outcome["status"], outcome["restarts"]) == (
        "interrupted",
        {"run_loop-icons": 1, "learner": 1},
    )
    assert "SIGTERM" in outcome["message"]
    assert outcome["ends"] == {"learner": [0, False], "run_loop-icons": [0, False]}
    said = (place / "puppets.out").read_text()
    assert "task run_loop-icons crashed: killed by signal 9" in said
    assert "started again (1 of 1 within the hour)" in said
    assert re.search(r"task learner was silent for \d+ s; it last said, .*, and was killed", said)
    # Both lives' output is there.
    assert "saw the stop event" in (workdir / "logs" / "run_loop-icons.log").read_text()
    assert not (workdir / "tasks").exists()


# A job that ends as an interrupted run does, and completes when it is started again.
TWO_LIVES = """
cd {workdir}
result() {{
    echo "{{\\"status\\": \\"$1\\", \\"message\\": \\"life $2\\"}}" > result.tmp
    mv result.tmp result.json
}}
if [ -e begun ]; then result completed 2; exit 0; fi
trap 'result interrupted 1; exit 143' TERM
touch begun
sleep 600 &
wait
"""


def hurry(cluster, job):
    """Makes a job that is put into the queue again start soon."""
    deadline = time.monotonic() + SECONDS
    while f"{job} PENDING" not in cluster.jobs() and time.monotonic() < deadline:
        time.sleep(0.1)
    # Of itself Slurm waits for two minutes. Within the same second the host would take it
    # for the job that has just ended.
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now+3")


@contextlib.contextmanager
def two_lives(cluster, place, name, monkeypatch):
    """A job that may be requeued and its events, once its first life has begun."""
    for variable in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(variable, cluster.environment[variable])
    workdir = place / name
    workdir.mkdir()
    script = TWO_LIVES.format(workdir=shlex.quote(str(workdir)))
    job = submitted(cluster, place, name, script, "--requeue", "--open-mode=append")
    events = queue.SimpleQueue()
    followed = SubmittedJob(job, workdir, events, 60)
    try:
        deadline = time.monotonic() + SECONDS
        while not (workdir / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield job, followed, events
    finally:
        cluster.run("scancel", job)
        cluster.wait_until_empty()


@on_slurm
def test_a_job_that_is_started_again_is_followed_to_its_end(cluster, place, monkeypatch):
    with two_lives(cluster, place, "requeued", monkeypatch) as (job, followed, _):
        hurrying = threading.Thread(target=hurry, args=(cluster, job))
        hurrying.start()
        cluster.run("scancel", "--batch", "--signal=TERM", job)
        outcome = followed.follow()
        hurrying.join()
    assert (outcome.status, outcome.message) == ("completed", "life 2")


@on_slurm
def test_a_job_that_was_stopped_is_not_started_again(cluster, place, monkeypatch):
    with two_lives(cluster, place, "ended", monkeypatch) as (job, followed, events):
        events.put(Interrupt(signal.SIGTERM))
        outcome = followed.follow()
        assert (outcome.status, outcome.message, outcome.exit_status) == ("interrupted", "life 1", 143)
        assert not [line for line in cluster.jobs() if line.startswith(job)]


@on_slurm
def test_a_run_whose_job_is_requeued_goes_on(cluster, place):
    options = ["--config.policy=uniform", "--config.steps=200", "--config.cluster.requeue=True"]
    with launched(cluster, place, "preempted", *options) as process:
        wait_for_text(place / "preempted" / "metrics" / "learner.jsonl", "step", process)
        job = job_of(place, "preempted")
        # As a preemption does: the same signals, and the same number in the queue.
        cluster.run("scontrol", "requeue", job)
        hurry(cluster, job)
        status, said = ended(process, place, "preempted")
    assert status == 0, said
    assert f"job {job}: pending" in said
    (out,), (errors,) = ((place / "preempted" / "slurm").glob(f"*.{kind}") for kind in ("out", "err"))
    # What both lives printed.
    assert out.read_text().count("n1: ") == 2
    assert "stopped by SIGTERM" in errors.read_text()
    assert int(re.search(r"goes on from step (\d+)", errors.read_text())[1]) > 0
    result = result_of(place, "preempted")
    assert (result["status"], result["steps"], result["restarts"]) == ("completed", 200, {})
    steps = [json.loads(line)["step"] for line in (place / "preempted" / "metrics" / "learner.jsonl").open()]
    assert steps[-1] == 200
    cluster.wait_until_empty()


def test_a_step_has_its_share_of_the_job_and_no_options_of_the_batch_script():
    hosts = (Host("n1", "a", 4, 8.0), Host("n3", "c", 4, 8.0))
    allocation = Allocation("7", hosts, {"n1": 0, "n3": 1}, 2)
    found = slurm.step_command(allocation, "n3", Needs(cpus=4, memory_gb=1.5, gpus=2), "learner")
    wanted = {
        "--jobid=7",
        "--het-group=1",
        "--nodelist=n3",
        "--cpus-per-task=4",
        "--mem=1536M",
        "--gres=gpu:2",
    }
    assert wanted <= set(found) and f"--chdir={os.getcwd()}" in found
    plain = slurm.step_command(Allocation("7", hosts, {}, 1), "n1", Needs(), "replay")
    assert {"--mem=0", "--gres=none"} <= set(plain) and not any("het-group" in word for word in plain)
    batch = {
        "SLURM_JOB_ID": "7",
        "SLURM_MEM_PER_CPU": "100",
        "SLURM_CONF": "x",
        "SLURM_NTASKS": "3",
        "HOME": "/",
    }
    assert slurm.step_environment(batch) == {"SLURM_JOB_ID": "7", "SLURM_CONF": "x", "HOME": "/"}


def test_a_step_that_is_to_be_started_again_may_be_asked_to_stop_with_the_others(tmp_path):
    data_file, log_path = tmp_path / "replay.pkl", tmp_path / "replay.log"
    task = Task("replay", "replay", 0, "n1", ("true",), {}, (), data_file, log_path)
    events = queue.SimpleQueue()
    srun = ["sh", "-c", f"cat > {tmp_path / 'heard'}"]
    steps = Steps([task], {"replay": srun}, (), 8.0, lambda: ["n1"], events)
    with contextlib.closing(steps):
        steps.start("replay")
        steps.stop(["replay"], 8.0)
        steps.stop(["replay"], 5.0)
        assert events.get(timeout=20).name == "replay"
    assert (tmp_path / "heard").read_text() == "8.0"
