"""Whole programs: real Launchpad, real Reverb, started through the command line."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
from program_runs import (
    CLASSACT,
    command,
    environment,
    lines_of,
    processes_of,
    result_of,
    start,
    start_actors,
    start_evaluator,
    start_hosts,
    train,
    wait_for_line,
    wait_until,
)

LINE_NAMES = {
    "train/loss",
    "train/examples",
    "train/data_wait_seconds",
    "train/step_seconds",
    "replay/size",
    "replay/samples",
    "replay/inserts",
    "selection/staleness_steps",
    "selection/corrupted_fraction",
}

# A user's module: a policy of their own, and one that returns nonsense.
USER_POLICIES = """
import jax.numpy as jnp
from classact.selection import policies

@policies.register_policy("margin", online="proxy", reference="fixed")
def margin(online, reference):
    return online["loss"] - reference["loss"] + 0.1 * online["logits"].std(axis=-1)

broken = policies.Policy("broken", online="learner", score=lambda online, reference: online["loss"] * jnp.nan)
"""

# Pairs beside labels that are read as captions, of which it chooses jointly; the learner draws each at its
# own rate.
TWO_DATA_SETS = """
from classact.experiments import base
from classact.experiments.configs import image_text

def get_config():
    config = image_text.get_config()
    config.learner.model = "vit_mu_1_1"
    config.steps, config.log_every, config.evaluation.every = 20, 10, 20
    config.data_sets = {
        "pairs": base.data_set(config, policy="classact_online", batch_size=16, caption_noise=0.3),
        "labels": base.data_set(config, policy="jest_hard", train_data="icons?classes=50", batch_size=8),
    }
    config.evaluation.evaluators = {
        "retrieval": {"kind": "retrieval", "data": "icon_pairs?subset=clean", "distinct": True},
        "icons": {"kind": "zero_shot", "data": "icons?classes=50", "templates": "icons"},
    }
    return config
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained reference, the user's module and a temporary directory to watch."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "tmp").mkdir()
    (folder / "user_policies.py").write_text(USER_POLICIES)
    (folder / "two_data_sets.py").write_text(TWO_DATA_SETS)
    done = train(folder, "reference", "--config.policy=uniform", "--launch=threads")
    assert done.returncode == 0, done.stderr
    return folder


def left_behind(place):
    """What is left in the temporary directory, but for the user's own folder for sockets."""
    return [path for path in (place / "tmp").rglob("*") if path.name != f"classact-{os.getuid()}"]


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_classact_runs_and_leaves_what_the_contract_says(place, launch):
    name = f"classact_{launch}"
    reference = f"--config.reference.checkpoint={place / 'reference'}"
    # The online model sees half of what the reference sees; the learner starts where that has ended.
    apart = ["--config.scorer.image_size=4", f"--config.learner.init={place / 'reference'}"]
    done = train(place, name, "--config.policy=classact", reference, *apart, f"--launch={launch}")
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(place, name)
    assert result["status"] == "completed" and result["steps"] == 60
    assert result["final"]["eval/test/top1"] > 0.3  # Chance is 0.1.
    assert result["ledger"]["scoring_macs"] > 0 and result["ledger"]["reference_pretraining_macs"] > 0
    assert (place / name / "checkpoints" / "60").is_dir()
    endpoints = json.loads((place / name / "endpoints.json").read_text())
    assert set(endpoints) == {"learner", "replay/digits", "inference/digits"}

    learner = lines_of(place, name, "learner")
    assert [line["step"] for line in learner] == [10, 20, 30, 40, 50, 60]
    assert learner[0]["train/loss"] < lines_of(place, "reference", "learner")[0]["train/loss"] - 0.2
    assert all(set(line) >= LINE_NAMES for line in learner)
    counts = result["counts"]
    assert counts["updates"] == 60 and counts["updates_redone"] == 0
    scored = counts["examples"]["online"].pop("scored")
    # Not only what came into the tables before the last update: all that the servers computed.
    assert scored % 64 == 0 and learner[-1]["replay/inserts"] <= scored <= 60 * 64 + 256 + 2 * 3 * 64
    assert counts["examples"] == {
        "learner": {"evaluated_images": counts["evaluations"] * 359, "trained": 60 * 32},
        "online": {"trained": 60 * 32},
        "reference": {"scored": scored},
    }
    assert counts["evaluations"] == len(lines_of(place, name, "evaluator-test"))
    spent = result["ledger"]
    assert 0 < spent["scorer_forward_macs"] < spent["reference_forward_macs"] == spent["learner_forward_macs"]
    assert spent["scoring_macs"] == scored * (spent["scorer_forward_macs"] + spent["reference_forward_macs"])
    evaluated = counts["examples"]["learner"]["evaluated_images"]
    assert spent["evaluation_macs"] == evaluated * spent["learner_forward_macs"]
    assert spent["padding_macs"] == spent["redone_macs"] == 0
    assert result["reference_pretraining"] == {
        str(place / "reference"): result_of(place, "reference")["ledger"]["total_macs"]
    }
    kinds = {"learner", "replay", "inference", "evaluator", "launcher"}
    assert set(result["cpu_seconds_by_kind"]) == (kinds if launch == "processes" else {"one_process"})
    assert sum(result["cpu_seconds_by_kind"].values()) == pytest.approx(result["cpu_seconds"])
    assert result["gpu_seconds"] == 0 and result["gpu_seconds_by_kind"] == {}
    last = learner[-1]
    # The ratio of Appendix A.6, up to what the rate limiter lets writers run ahead.
    assert 0.5 * (last["replay/inserts"] - 1024) < last["replay/samples"] < 0.5 * last["replay/inserts"] + 1
    # Bounded by the table: its capacity is four super-batches, half of each is taken.
    assert 0 <= last["selection/staleness_steps"] < 16
    evaluations = lines_of(place, name, "evaluator-test")
    assert evaluations[-1]["step"] == 60
    scores = lines_of(place, name, "run_loop-digits-0")
    assert {"score/mean", "score/p10", "score/p90"} <= set(scores[-1]) if scores else True
    for path in ("per_class/test.json", "selected/digits.json"):
        counts = json.loads((place / name / path).read_text())
        assert counts["step"] == 60 and len(counts["classes"]) == 10
    assert sum(counts["labels"]) == counts["examples"] == 60 * last["train/examples"] / 10
    assert 0 < counts["distinct"] <= counts["examples"]
    assert not processes_of(place / name)
    assert not left_behind(place)


def test_algorithm_2_trains_its_reference_on_the_stream(place):
    done = train(
        place, "online", "--config.policy=classact_online", "--launch=processes", "--config.steps=40"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    losses = [line["train/reference_loss"] for line in lines_of(place, "online", "learner")]
    assert losses[-1] < losses[0]
    assert result_of(place, "online")["ledger"]["reference_training_macs"] > 0


@pytest.mark.parametrize("launch", ["processes", "synchronous"])
def test_images_and_texts_of_two_data_sets(place, launch):
    name = f"pairs_{launch}"
    done = train(place, name, f"--launch={launch}", config=place / "two_data_sets.py", fields=[])
    assert done.returncode == 0, done.stdout + done.stderr
    final = result_of(place, name)["final"]
    assert final["eval/retrieval/pairs"] > 1000
    assert 0 <= final["eval/retrieval/t2i_r1"] <= final["eval/retrieval/t2i_r10"] <= 1
    assert 0 <= final["eval/icons/zero_shot_top1"] <= 1
    counts = result_of(place, name)["counts"]["examples"]
    # Each of two evaluations: all pairs and their images, and the images and the prompts of 50 classes.
    once = final["eval/retrieval/images"] + final["eval/retrieval/pairs"]
    assert counts["learner"]["evaluated_images"] + counts["learner"]["evaluated_texts"] > once
    assert counts["learner"]["trained"] == 20 * (16 + 8) and counts["online"]["trained"] == 20 * 16
    assert counts["reference"]["trained"] == 20 * 160
    if launch == "synchronous":
        assert counts["online"]["scored"] == counts["reference"]["scored"] == 20 * 32
        assert counts["learner"]["scored"] == 20 * 16
    # Each update compares the 16 embeddings of a super-batch, 64 wide, with each other.
    assert result_of(place, name)["ledger"]["joint_selection_macs"] == 20 * 16 * 16 * 64
    last = lines_of(place, name, "learner")[-1]
    assert last["train/examples"] == 10 * (16 + 8)
    assert last["train/pairs/loss"] != last["train/labels/loss"]
    assert last["train/reference_loss"] > 0 and last["train/online_loss"] > 0
    assert last["selection/repeated_fraction"] >= 0
    # What it chooses has a higher score than what it chooses from.
    for of in ("selection", "selection/labels"):
        assert last[f"{of}/joint_mean"] > 0 and 0 < last[f"{of}/joint_own_share"] < 1
        assert last[f"{of}/score_mean"] != last[f"{of}/score_mean_super_batch"]
    for path in ("selected/pairs.json", "selected/labels.json", "per_class/icons.json"):
        assert json.loads((place / name / path).read_text())["step"] == 20
    if launch == "processes":
        assert "selection/pairs/repeated_fraction" in last
        assert {"replay/pairs/size", "replay/labels/size", "train/pairs/data_wait_seconds"} <= set(last)
        assert set(json.loads((place / name / "endpoints.json").read_text())) == {
            "learner", "replay/pairs", "replay/labels", "inference/pairs", "inference/labels"
        }  # fmt: skip
        # All that comes is drawn, and what is drawn, in the order in which it comes.
        assert last["replay/labels/samples"] % 16 == 0 and last["selection/labels/staleness_steps"] >= 0
        assert "selection/pairs/corrupted_fraction" in last


def test_a_users_policy_and_run_loops_as_nodes(place):
    done = train(
        place,
        "margin",
        "--config.policy=user_policies:margin",
        f"--config.reference.checkpoint={place / 'reference'}",
        "--config.inference.run_loops_as_nodes=True",
        "--config.inference.servers=2",
        "--config.inference.run_loops=2",
        "--launch=threads",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (place / "margin" / "metrics").glob("run_loop-*")} == {
        f"run_loop-digits-{index}.jsonl" for index in range(4)
    }


def test_run_loops_fill_two_shards_and_the_learner_reads_both(place):
    done = train(
        place,
        "sharded",
        "--config.policy=classact_online",
        "--config.replay.shards=2",
        "--config.replay.read_ahead=2",
        "--config.inference.servers=2",
        # No divisor of the 64 examples that are scored for an update.
        "--config.inference.request_size=24",
        "--config.steps=200",
        "--launch=threads",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    addresses = json.loads((place / "sharded" / "endpoints.json").read_text())["replay/digits"]
    assert len(set(addresses)) == 2
    last = lines_of(place, "sharded", "learner")[-1]
    sizes = [last[f"replay/digits/shard_{shard}/size"] for shard in range(2)]
    assert min(sizes) > 0 and sum(sizes) == last["replay/size"]
    # What was trained on, and what was read ahead.
    assert 200 * 32 <= last["replay/samples"] <= 202 * 32
    # Twice as many, and what the stream's reader lets writers run ahead in two shards:
    # half their capacity, all of it, two super-batches of 320 and four of 64.
    assert 200 * 64 <= last["replay/inserts"] <= 2 * last["replay/samples"] + 128 + 256 + 640 + 256
    losses = [line["train/reference_loss"] for line in lines_of(place, "sharded", "learner")]
    assert losses[-1] < losses[0]
    scored = [line["run_loop/examples"] for line in lines_of(place, "sharded", "run_loop-digits-0")]
    assert scored[:2] == [50 * 24, 100 * 24]


def test_scores_that_are_not_numbers_end_the_run_with_their_reason(place):
    done = train(place, "broken", "--config.policy=user_policies:broken", "--launch=processes")
    assert done.returncode == 1
    assert "scores are NaN" in done.stderr and "max_nonfinite_share" in done.stderr
    result = result_of(place, "broken")
    assert (result["status"], result["diverged"], result["restarts"]) == ("failed", 0, {})
    assert not processes_of(place / "broken")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_every_process_within_ten_seconds(place, number):
    name = f"stopped_{number}"
    process = start(place, name, "--launch=processes", "--config.steps=100000")
    wait_for_line(place, name, process)
    process.send_signal(number)
    started = time.monotonic()
    assert process.wait(timeout=30) == 128 + number
    assert time.monotonic() - started < 10
    assert not processes_of(place / name)
    assert result_of(place, name)["status"] == "interrupted"
    assert result_of(place, name)["steps"] > 0
    assert not left_behind(place)


def test_an_evaluator_joins_a_running_experiment_and_never_holds_it_up(place):
    running = start(
        place, "joined", "--launch=processes", "--config.steps=3000", "--config.evaluation.every=1000"
    )
    wait_for_line(place, "joined", running)
    arguments = ["--evaluator=accuracy", "--every=1"]
    joined = [start_evaluator(place, "joined", f"--name={name}", *arguments) for name in ("slow", "killed")]
    for process, name in zip(joined, ("slow", "killed"), strict=True):
        wait_for_line(place, "joined", process, node=f"evaluator-{name}")
    joined[0].send_signal(signal.SIGSTOP)
    joined[1].kill()
    assert running.wait(timeout=240) == 0
    joined[0].send_signal(signal.SIGCONT)
    assert joined[0].wait(timeout=60) == 0
    joined[1].wait(timeout=10)

    lines = lines_of(place, "joined", "evaluator-slow")
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert 0 < steps[0] < steps[-1] == 3000
    # It measures what the program's own evaluator does, on the same data.
    own = lines_of(place, "joined", "evaluator-test")[-1]
    assert own["step"] == 3000
    assert lines[-1]["eval/slow/top1"] == pytest.approx(own["eval/test/top1"])

    done = start_evaluator(place, "joined", "--name=after", *arguments)
    assert done.wait(timeout=60) == 0
    (line,) = lines_of(place, "joined", "evaluator-after")
    assert (line["step"], line["eval/after/top1"]) == (3000, pytest.approx(own["eval/test/top1"]))


def test_actors_join_a_running_experiment_and_leave_at_any_time(place):
    name = "grown"
    running = start(
        place,
        name,
        "--launch=processes",
        "--config.policy=classact",
        f"--config.reference.checkpoint={place / 'reference'}",
        "--config.steps=1000",
        "--config.evaluation.every=500",
    )
    wait_for_line(place, name, running)
    # The run must not be over before everybody is there, however slow the machine is.
    (learner,) = (p for p in processes_of(place / name) if "tasks/learner.pkl" in " ".join(p.cmdline()))
    learner.suspend()
    commands = [start_actors(place, name) for _ in range(3)]
    joined = []
    for process, output in commands:
        wait_until(lambda: " starts; " in output.read_text(), process, output)  # noqa: B023
        (line,) = (line for line in output.read_text().splitlines() if " starts; " in line)
        joined.append(line.split()[0].removeprefix("inference-"))
    assert len(set(joined)) == 3
    for (process, output), actor in zip(commands, joined, strict=True):
        ready = (place / name / "metrics" / f"run_loop-{actor}.jsonl").exists
        wait_until(ready, process, output)
    learner.resume()
    for actor in joined:
        wait_for_line(place, name, running, node=f"run_loop-{actor}")
    (killed, _), (stopped, _), (staying, output) = commands
    killed.kill()
    stopped.terminate()
    started = time.monotonic()
    assert stopped.wait(timeout=30) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 10
    killed.wait(timeout=10)
    left = [" ".join(process.cmdline()) for process in processes_of(place / name)]
    assert not [line for line in left if joined[0] in line or joined[1] in line]
    assert running.poll() is None and staying.poll() is None

    assert running.wait(timeout=240) == 0
    assert staying.wait(timeout=30) == 0, output.read_text()
    assert not processes_of(place / name)
    for actor in joined:
        assert lines_of(place, name, f"run_loop-{actor}")[-1]["run_loop/examples"] >= 50 * 64
    lines = lines_of(place, name, "learner")
    assert all("selection/staleness_steps" in line for line in lines)
    last = lines[-1]
    assert 0.5 * (last["replay/inserts"] - 1024) < last["replay/samples"] < 0.5 * last["replay/inserts"] + 1


def test_a_learner_on_two_hosts_is_one_learner(place):
    # Each host reads the images of its own part.
    running = start_hosts(
        place, "hosts", "--config.steps=40", "--config.checkpoint_every=25", "--config.replay.images=ids"
    )
    assert running.wait(timeout=280) == 0, (place / "hosts.out").read_text()
    assert result_of(place, "hosts")["status"] == "completed"
    assert [line["step"] for line in lines_of(place, "hosts", "learner")] == [10, 20, 30, 40]
    last = lines_of(place, "hosts", "learner")[-1]
    assert last["train/examples"] == 10 * 32
    # Both hosts read: what was sampled is what was trained on, but for what is read ahead.
    assert last["replay/samples"] >= 40 * 32 and last["replay/replaced"] == 0
    names = {path.name for path in (place / "hosts" / "metrics").iterdir()}
    assert names == {"learner.jsonl", "evaluator-test.jsonl", "run_loop-digits-0.jsonl"}
    assert {path.name for path in (place / "hosts" / "logs").glob("learner*")} == {
        "learner-0.log", "learner-1.log"
    }  # fmt: skip
    own = lines_of(place, "hosts", "evaluator-test")[-1]
    assert own["step"] == 40 and own["eval/test/top1"] > 0.3
    # One device reads what four have written.
    done = start_evaluator(place, "hosts", "--name=after", "--evaluator=accuracy")
    assert done.wait(timeout=60) == 0
    (line,) = lines_of(place, "hosts", "evaluator-after")
    assert (line["step"], line["eval/after/top1"]) == (40, pytest.approx(own["eval/test/top1"]))


def test_a_signal_stops_both_hosts(place):
    process = start_hosts(place, "stopped_hosts", "--config.steps=100000")
    wait_for_line(place, "stopped_hosts", process)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    # No host waits for the other until the engine kills it, after 8 seconds.
    assert time.monotonic() - started < 8
    assert not processes_of(place / "stopped_hosts")
    assert result_of(place, "stopped_hosts")["status"] == "interrupted"


def listening(pid):
    """The ports on which anybody listens in the network of a process."""
    ports = set()
    for table in ("tcp", "tcp6"):
        lines = pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        # The fourth field is the state, 0A for one that listens.
        ports |= {int(line.split()[1].split(":")[1], 16) for line in lines if line.split()[3] == "0A"}
    return ports


def network_of(pid):
    return os.readlink(f"/proc/{pid}/ns/net")


def test_nothing_outside_reaches_an_isolated_run(place):
    name = "isolated"
    # Where the tests are root's: an ordinary user who may read what root may.
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    probe = subprocess.run([*user, "unshare", "--user", "--net", "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"this machine gives no namespaces: {probe.stderr.strip()}")
    arguments = ["--isolate", "--launch=processes", "--config.policy=hard_learner", "--config.steps=100000"]
    with (place / f"{name}.out").open("w") as log:
        process = subprocess.Popen(
            [*user, *command(place / name, *arguments)],
            env=environment(place),
            cwd=place,
            stdout=log,
            stderr=log,
        )
    wait_for_line(place, name, process)

    nodes = processes_of(place / name)
    assert process.pid in {node.pid for node in nodes} and len(nodes) == 6
    assert {network_of(node.pid) for node in nodes} == {network_of(process.pid)} != {network_of("self")}
    # Nor has it a port, there or anywhere.
    assert not listening(process.pid)
    endpoints = json.loads((place / name / "endpoints.json").read_text())
    assert all(address.startswith("unix:") for group in endpoints.values() for address in group)

    evaluate = [*CLASSACT, "evaluate", f"--workdir={place / name}", "--evaluator=accuracy", "--name=inside"]
    options = {"env": environment(place), "cwd": place, "text": True}
    refused = subprocess.run(evaluate, capture_output=True, timeout=120, **options)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    (way_in,) = re.findall(r"put (nsenter .*) before the command", refused.stderr)
    with subprocess.Popen([*way_in.split(), *evaluate], stdout=subprocess.PIPE, **options) as joined:
        assert joined.stdout.readline().startswith("step ")
        joined.terminate()
        assert joined.wait(timeout=60) == 128 + signal.SIGTERM

    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert process.wait(timeout=30) == 128 + signal.SIGINT
    assert time.monotonic() - started < 10
    assert not processes_of(place / name)
    assert result_of(place, name)["status"] == "interrupted"


@pytest.mark.parametrize("launch", ["threads", "synchronous"])
def test_a_signal_stops_a_single_process_too(place, launch):
    name = f"stopped_{launch}"
    process = start(place, name, f"--launch={launch}", "--config.steps=100000")
    wait_for_line(place, name, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=15) == 128 + signal.SIGTERM
    assert result_of(place, name)["status"] == "interrupted"


def test_asynchrony_costs_little_accuracy(place):
    """The program and the synchronous loop end alike; the seed and the data are the same."""
    reference = f"--config.reference.checkpoint={place / 'reference'}"
    shared = ["--config.policy=classact", reference, "--config.steps=250", "--config.learning_rate=0.003"]
    for launch in ("threads", "synchronous"):
        done = train(place, f"compared_{launch}", *shared, f"--launch={launch}")
        assert done.returncode == 0, done.stdout + done.stderr
    asynchronous, synchronous = (
        result_of(place, f"compared_{launch}")["final"]["eval/test/top1"]
        for launch in ("threads", "synchronous")
    )
    assert synchronous > 0.75
    assert abs(asynchronous - synchronous) < 0.08
