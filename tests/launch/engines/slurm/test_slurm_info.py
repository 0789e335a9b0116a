"""What Slurm says, read without one; the lines are its own, 22.05."""

import stat

import pytest

from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.slurm import info as slurm_info
from classact.launch.engines.slurm.info import Allocation, HostKind, JobState, Partition

JOB = (
    "JobId=7 HetJobId=7 HetJobOffset=0 JobName=x JobState=RUNNING Reason=None ExitCode=0:0 Partition=cpu "
    "NodeList=n[1-2] NumNodes=2 NumCPUs=14   Nodes=n1 CPU_IDs=0-3,8-9 Mem=2048 GRES= Nodes=n2 CPU_IDs=0-7 "
    "Mem=0 GRES= MinCPUsNode=3 Command=/a b/x.sh WorkDir=/a b\n"
    "JobId=8 HetJobId=7 HetJobOffset=1 JobName=x JobState=RUNNING Reason=None ExitCode=0:0 "
    "Partition=accelerator NodeList=n3 NumNodes=1   Nodes=n3 CPU_IDs=1 Mem=512 GRES=gpu:a100:2(IDX:0-1) "
    "MinCPUsNode=1\n"
)
NODES = {
    "n1": "NodeName=n1 Arch=x86_64 CPUTot=8 NodeAddr=10.0.0.1 RealMemory=8192 ThreadsPerCore=1\n",
    "n2": "NodeName=n2 Arch=x86_64 CPUTot=8 NodeAddr=10.0.0.2 RealMemory=4096 ThreadsPerCore=2\n",
    "n3": "NodeName=n3 Arch=x86_64 CPUTot=8 NodeAddr=10.0.0.3 RealMemory=8192 ThreadsPerCore=1\n",
}


def test_an_allocation_is_what_the_job_has_of_each_host():
    found = slurm_info.parse_allocation("7", JOB, NODES.__getitem__)
    assert found == Allocation(
        "7",
        (
            slurm_info.Host("n1", "10.0.0.1", 6, 2.0, 0, ("cpu",)),
            slurm_info.Host("n2", "10.0.0.2", 8, 4.0, 0, ("cpu",)),
            slurm_info.Host("n3", "10.0.0.3", 1, 0.5, 2, ("accelerator",)),
        ),
        {"n1": 0, "n2": 0, "n3": 1},
        threads_per_core=2,
    )


def test_an_ordinary_job_has_no_components():
    job = JOB.splitlines()[0].replace("HetJobId=7 HetJobOffset=0 ", "")
    assert slurm_info.parse_allocation("7", job, NODES.__getitem__).het_groups == {}


def test_a_job_without_hosts_is_an_error():
    pending = "JobId=7 JobName=x JobState=PENDING Partition=cpu NodeList=(null)\n"
    with pytest.raises(LaunchError, match="no hosts of job 7"):
        slurm_info.parse_allocation("7", pending, NODES.__getitem__)


def test_partitions_with_unlike_hosts():
    said = (
        "cpu*|2|8|8192|2|(null)\n"
        "cpu*|1|64+|16384+|1|(null)\n"
        "accelerator|4|32|65536|1|gpu:a100:4(S:0-1),nic:1\n"
    )
    assert slurm_info.parse_partitions(said) == {
        "cpu": Partition("cpu", True, (HostKind(2, 8, 8.0, 0, 2), HostKind(1, 64, 16.0, 0, 1))),
        "accelerator": Partition("accelerator", False, (HostKind(4, 32, 64.0, 4, 1),)),
    }


@pytest.mark.parametrize("text, count", [("0", 1), ("0-3", 4), ("0-1,4,6-7", 5)])
def test_ids_are_counted(text, count):
    assert slurm_info.count_ids(text) == count


@pytest.mark.parametrize(
    "gres, count",
    [("", 0), ("(null)", 0), ("nic:2", 0), ("gpu:2", 2), ("gpu:a100:2(IDX:0-1),gpu:v100:1(IDX:2),nic:1", 3)],
)
def test_gpus_are_counted(gres, count):
    assert slurm_info.count_gpus(gres) == count


@pytest.mark.parametrize(
    "state, over",
    [("PENDING", False), ("COMPLETING", False), ("COMPLETED", True), ("NODE_FAIL", True), ("", True)],
)
def test_when_a_job_is_over(state, over):
    assert JobState(state).is_over == over


def test_a_state_in_words():
    assert str(JobState("PENDING", "Resources")) == "pending (Resources)"
    assert str(JobState("TIMEOUT", "None")) == "timeout"
    assert "forgotten" in str(JobState(""))


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Puts commands on PATH that do what the test says."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def add(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return add


def test_of_a_jobs_components_the_one_that_is_not_over_counts(commands):
    commands(
        "scontrol",
        "echo JobState=COMPLETED Reason=None ExitCode=0:0\necho JobState=COMPLETING Reason=None ExitCode=0:0",
    )
    assert slurm_info.job_state("7").state == "COMPLETING"


def test_a_job_that_slurm_has_forgotten_is_over(commands):
    commands("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm_info.job_state("7").is_over
    commands("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(LaunchError, match="Unable to contact"):
        slurm_info.job_state("7")


def test_a_slurm_that_is_nowhere_is_one_short_sentence(commands):
    said = "sinfo: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\\n"
    said += "sinfo: error: fetch_config: DNS SRV lookup failed\\n"
    said += "sinfo: fatal: Could not establish a configuration"
    commands("sinfo", f"printf '{said}' >&2; exit 1")
    with pytest.raises(LaunchError) as caught:
        slurm_info.ask("sinfo")
    assert str(caught.value) == (
        "no Slurm is reachable from here (sinfo: fatal: Could not establish a configuration)"
    )


def test_commands_that_are_not_there_are_named(commands):
    commands("sbatch", "exit 0")
    slurm_info.check_commands(["sbatch"])
    with pytest.raises(LaunchError, match="slurm-a, slurm-b not on PATH"):
        slurm_info.check_commands(["sbatch", "slurm-a", "slurm-b"])
    with pytest.raises(LaunchError, match="slurm-a not on PATH"):
        slurm_info.ask("slurm-a")


def test_the_job_that_this_process_is_in(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm_info.own_job_id() is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm_info.own_job_id() == "7"
