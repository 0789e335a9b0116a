"""What a job asks for; that it runs is for test_slurm.py."""

import dataclasses
import errno
import os
import shlex
from pathlib import Path

import puppets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments import base
from classact.experiments.resolution import resolve
from classact.launch.engines.cluster import needs_of
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.placement import Host, place
from classact.launch.engines.slurm import info as slurm_info
from classact.launch.engines.slurm import job as slurm_job
from classact.launch.engines.slurm.info import HostKind, Partition
from classact.launch.engines.slurm.job import Part, batch_script, plan

COMMAND = ["python", "-m", "runs", "what was submitted"]
GROUPS = {
    "replay/icons": ["node"],
    "learner": ["node"],
    "inference/icons": ["node", "node"],
    "evaluator/test": ["node"],
}
THERE = {
    "cpu": Partition("cpu", True, (HostKind(4, 8, 16.0, 0, 1),)),
    "gpu": Partition("gpu", False, (HostKind(2, 16, 64.0, 4, 2),)),
}


def cluster(hosts=0, **kinds):
    config = resolve({**base.get_config().to_dict(), "policy": "uniform"}).cluster
    changed = {kind: dataclasses.replace(getattr(config, kind), **fields) for kind, fields in kinds.items()}
    return dataclasses.replace(config, hosts=hosts, **changed)


def test_as_few_hosts_as_have_room_in_the_default_partition():
    resolved, parts = plan(cluster(), GROUPS, THERE)
    assert parts == [Part("cpu", 1, 5, 0.0, 0)]
    assert resolved.learner.partition == resolved.evaluator.partition == "cpu"

    _, parts = plan(cluster(inference={"cpus": 6}), GROUPS, THERE)
    assert parts == [Part("cpu", 2, 8, 0.0, 0)]


def test_the_learner_in_a_partition_of_its_own():
    own = cluster(3, learner={"partition": "gpu", "gpus": 1, "cpus": 3})
    resolved, parts = plan(own, GROUPS, THERE)
    # Four nodes on two hosts; two threads a core there.
    assert parts == [Part("cpu", 2, 2, 0.0, 0), Part("gpu", 1, 4, 0.0, 1)]
    assert (resolved.learner.partition, resolved.replay.partition) == ("gpu", "cpu")


def test_no_more_hosts_than_nodes():
    _, parts = plan(cluster(50), {"learner": ["node"], "replay/icons": ["node"]}, THERE)
    assert parts == [Part("cpu", 2, 1, 0.0, 0)]


def test_memory_is_asked_for_if_every_node_says_how_much():
    some = {"memory_gb": 2.0}
    _, parts = plan(cluster(learner=some), GROUPS, THERE)
    assert parts[0].memory_gb == 0.0
    every = cluster(learner={"memory_gb": 5.0}, replay=some, inference=some, evaluator=some)
    _, parts = plan(every, GROUPS, THERE)
    # And one for the launcher.
    assert (parts[0].hosts, parts[0].memory_gb) == (1, pytest.approx(14.0, abs=0.01))
    assert parts[0].options()[-1] == f"--mem={14 * 1024 + 1}M"


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learner": {"partition": "tpu"}}, r"cluster\.learner\.partition='tpu': the cluster has cpu, gpu"),
        (
            {"learner": {"gpus": 1}},
            "partition cpu has no room: .* 4 with 8 CPUs, 16 GB, 0 GPUs; .* learner: 1",
        ),
        ({"inference": {"cpus": 9}}, "partition cpu has no room"),
        ({"inference": {"cpus": 8}, "hosts": 1}, r"cluster\.hosts=1: the nodes need 3 hosts"),
    ],
)
def test_what_the_cluster_does_not_have(changed, message):
    with pytest.raises(LaunchError, match=message):
        plan(cluster(**changed), GROUPS, THERE)


def test_a_cluster_without_a_default_partition():
    with pytest.raises(LaunchError, match=r"cluster\.replay\.partition='': .* name one of: gpu"):
        plan(cluster(), GROUPS, {"gpu": THERE["gpu"]})


@given(
    st.fixed_dictionaries(
        {kind: st.tuples(st.integers(1, 8), st.integers(1, 4)) for kind in ("learner", "replay", "inference")}
    ),
    st.integers(0, 4),
)
def test_the_run_finds_room_on_what_it_asked_for(sizes, hosts):
    own = cluster(hosts, **{kind: {"cpus": cpus, "memory_gb": gb} for kind, (cpus, gb) in sizes.items()})
    groups = {label: nodes for label, nodes in GROUPS.items() if label != "evaluator/test"}
    try:
        resolved, (part,) = plan(own, groups, THERE)
    except LaunchError:
        return
    given_hosts = [Host(str(i), "", part.cpus, part.memory_gb - 1, 0, ("cpu",)) for i in range(part.hosts)]
    place(needs_of(resolved, groups), given_hosts)


def test_the_script_is_one_that_sbatch_and_a_shell_can_read():
    parts = [Part("cpu", 2, 4, 3.0, 0), Part("gpu", 1, 2, 0.0, 1)]
    script = batch_script(
        Path("/shared/a run/100%"), COMMAND, parts, "--account=us '--comment=a b'"
    ).splitlines()
    assert script[0] == "#!/bin/bash"
    options = [shlex.split(line.removeprefix("#SBATCH ")) for line in script[1:-1]]
    assert all(len(option) == 1 for option in options)
    flat = [option for (option,) in options]
    split = flat.index("hetjob")
    assert flat[split + 1 :] == [
        "--partition=gpu", "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=2", "--gres=gpu:1",
        "--account=us", "--comment=a b",
    ]  # fmt: skip
    assert {"--partition=cpu", "--nodes=2", "--cpus-per-task=4", "--mem=3072M", "--account=us"} <= set(
        flat[:split]
    )
    assert "--output=/shared/a run/100%%/slurm/%j.out" in flat
    assert {"--no-requeue", "--signal=B:TERM@60", "--no-kill", "--open-mode=append"} <= set(flat)
    assert shlex.split(script[-1]) == ["exec", *COMMAND]


def test_a_job_may_be_put_into_the_queue_again():
    script = batch_script(
        Path("/shared/run"), COMMAND, [Part("cpu", 1, 4, 0.0, 0)], "", requeue=True
    ).splitlines()
    assert "#SBATCH --requeue" in script
    # Without a host the job is over, and starts again with others.
    assert not {"#SBATCH --no-requeue", "#SBATCH --no-kill"} & set(script)


def test_the_users_own_notice_comes_last_and_so_counts():
    options = "--signal=B:TERM@180"
    script = batch_script(Path("/shared/run"), COMMAND, [Part("cpu", 1, 4, 0.0, 0)], options).splitlines()
    signals = [line for line in script if "--signal" in line]
    assert signals == ["#SBATCH --signal=B:TERM@60", "#SBATCH --signal=B:TERM@180"]


@pytest.mark.parametrize(("stop_notice", "expected"), [(8.0, 60), (30.0, 60), (30.5, 61), (300.0, 330)])
def test_a_job_has_time_for_its_runs_notice_and_its_result(stop_notice, expected):
    assert slurm_job.notice_seconds(stop_notice) == expected


def test_nothing_is_left_where_a_job_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_info, "check_commands", lambda names: None)
    monkeypatch.setattr(slurm_info, "partitions", lambda: THERE)
    monkeypatch.setattr(slurm_info, "ask", lambda *command: pytest.fail("a job was submitted"))
    really = Path.write_text

    def has_room_for_one(path, text):
        if path.name != "config.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return really(path, text)

    monkeypatch.setattr(Path, "write_text", has_room_for_one)
    job = puppets.job_of(puppets.program(0), tmp_path / "run")
    with pytest.raises(LaunchError, match=r"No space left on device.*the same command goes on once it can"):
        slurm_job.run_job(job)
    assert not (tmp_path / "run").exists()
