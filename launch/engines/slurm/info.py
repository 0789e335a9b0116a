"""What Slurm says of a job's hosts, of its state, and of the cluster's partitions.

All of it is read from `scontrol` and `sinfo` in the formats that every version has;
`--json` came late, and its fields change.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.placement import Host

# The controller answers at once, or is not there.
_ANSWER_SECONDS = 60.0
# States of a job that is not over; every other one is an end.
_PRESENT = {
    "PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "SIGNALING", "STAGE_OUT",
    "RESIZING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "REVOKED",
}  # fmt: skip
# Those in which it waits for hosts, whether it had some before or not.
_QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
# What its commands say, in several sentences, where they find no controller.
_UNREACHABLE = re.compile(
    "resolve_ctls_from_dns_srv|fetch_config|[Uu]nable to contact|Could not establish a config"
)
_SHARE = re.compile(r"\bNodes=(\S+) CPU_IDs=(\S+) Mem=(\d+) GRES=(\S*)")


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The hosts that a Slurm job has.

    Attributes:
      job_id: of the job; of a heterogeneous one the first component's.
      hosts: with what of them the job may use, in the job's order.
      het_groups: number of its component by host; empty of an ordinary job.
      threads_per_core: CPUs that the job's steps are given at once, since they get
        whole cores.
    """

    job_id: str
    hosts: tuple[Host, ...]
    het_groups: dict[str, int]
    threads_per_core: int


@dataclasses.dataclass(frozen=True)
class JobState:
    """What Slurm says of a job.

    Attributes:
      state: for instance "PENDING"; "" if Slurm has forgotten the job.
      reason: why it is in this state, for instance "Resources".
      exit_code: of its script, "status:signal".
    """

    state: str
    reason: str = ""
    exit_code: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the job has ended and holds nothing any more."""
        return self.state not in _PRESENT

    @property
    def is_queued(self) -> bool:
        """Whether the job waits for hosts, at first or again."""
        return self.state in _QUEUED

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason not in ("", "None") else ""
        return (self.state.lower() or "forgotten by Slurm") + reason


@dataclasses.dataclass(frozen=True)
class HostKind:
    """Hosts of a partition that are alike."""

    count: int
    cpus: int
    memory_gb: float
    gpus: int
    threads_per_core: int


@dataclasses.dataclass(frozen=True)
class Partition:
    """A partition of the cluster and what its hosts have."""

    name: str
    is_default: bool
    kinds: tuple[HostKind, ...]


def ask(*command: str) -> str:
    """Runs a command of Slurm; blocks for a minute at most.

    Returns:
      Its standard output.

    Raises:
      LaunchError: if it is missing, fails, or does not answer; with what it said.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        raise _absent(command[:1]) from None
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{command[0]} did not answer within {_ANSWER_SECONDS:.0f} s") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        if _UNREACHABLE.search(said):
            # Of several sentences the last one says what came of it.
            last = done.stderr.strip().splitlines()[-1].removeprefix(f"{command[0]}: ")
            raise LaunchError(f"no Slurm is reachable from here ({command[0]}: {last})")
        raise LaunchError(f"{command[0]} failed: {said}")
    return done.stdout


def own_job_id() -> str | None:
    """The job that this process runs in, or has an allocation of; None outside."""
    return os.environ.get("SLURM_JOB_ID") or None


def read_allocation(job_id: str) -> Allocation:
    """Reads what hosts a job has, and how much of each.

    Raises:
      LaunchError: if Slurm does not say.
    """
    job = ask("scontrol", "show", "job", "--details", "--oneliner", job_id)
    return parse_allocation(job_id, job, lambda hosts: ask("scontrol", "show", "node", "--oneliner", hosts))


def parse_allocation(job_id: str, job: str, describe: Callable[[str], str]) -> Allocation:
    """Reads a job's description, a line for each of its components.

    Args:
      job_id: of the job.
      job: what `scontrol show job --details --oneliner` says.
      describe: gives what `scontrol show node --oneliner` says of a list of hosts.

    Raises:
      LaunchError: if that names no host.
    """
    hosts: list[Host] = []
    het_groups: dict[str, int] = {}
    threads = 1
    for part in job.splitlines():
        for names, cpus, memory, gres in _SHARE.findall(part):
            for node in describe(names).splitlines():
                name = _field(node, "NodeName")
                threads = max(threads, int(_field(node, "ThreadsPerCore")))
                # 0: memory is not given out, so the whole host's is there.
                megabytes = int(memory) or int(_field(node, "RealMemory"))
                address, partition = _field(node, "NodeAddr"), _field(part, "Partition")
                gpus = count_gpus(gres)
                hosts.append(Host(name, address, count_ids(cpus), megabytes / 1024, gpus, (partition,)))
                if "HetJobOffset=" in part:
                    het_groups[name] = int(_field(part, "HetJobOffset"))
    if not hosts:
        raise LaunchError(f"Slurm names no hosts of job {job_id}: is it running?")
    return Allocation(job_id, tuple(hosts), het_groups, threads)


def job_state(job_id: str) -> JobState:
    """Asks for the state of a job; of a heterogeneous one that of its first component that is not over.

    Raises:
      LaunchError: if Slurm does not answer.
    """
    try:
        said = ask("scontrol", "show", "job", "--oneliner", job_id)
    except LaunchError as error:
        if "Invalid job id" in str(error):
            return JobState("")
        raise
    states = [
        JobState(_field(part, "JobState"), _field(part, "Reason"), _field(part, "ExitCode"))
        for part in said.splitlines()
        if part.strip()
    ]
    return next((state for state in states if not state.is_over), states[0] if states else JobState(""))


def partitions() -> dict[str, Partition]:
    """Asks for the cluster's partitions, by name.

    Raises:
      LaunchError: if Slurm does not answer.
    """
    return parse_partitions(ask("sinfo", "--noheader", "--exact", "--format=%P|%D|%c|%m|%Z|%G"))


def parse_partitions(said: str) -> dict[str, Partition]:
    """Reads lines of `partition|hosts|CPUs|MB|threads a core|gres`, one for each kind of host."""
    found: dict[str, Partition] = {}
    for line in said.splitlines():
        name, count, cpus, memory, threads, gres = (word.strip() for word in line.split("|", 5))
        kind = HostKind(
            int(count), _number(cpus), _number(memory) / 1024, count_gpus(gres), max(1, _number(threads))
        )
        plain = name.rstrip("*")
        known = found.get(plain, Partition(plain, name.endswith("*"), ()))
        found[plain] = dataclasses.replace(known, kinds=(*known.kinds, kind))
    return found


def count_ids(text: str) -> int:
    """Counts the numbers of a list such as "0-3,8"."""
    total = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def count_gpus(gres: str) -> int:
    """Counts the GPUs in a list such as "gpu:a100:2(IDX:0-1),nic:1"."""
    return sum(int(count) for count in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres))


def _number(text: str) -> int:
    """Reads a number that may be followed by "+": of hosts that differ, the least."""
    return int(text.rstrip("+"))


def _field(line: str, name: str) -> str:
    found = re.search(rf"(?:^|\s){name}=(\S*)", line)
    if found is None:
        raise LaunchError(f"scontrol does not say {name}: {' '.join(line.split())[:200]}")
    return found[1]


def check_commands(commands: Sequence[str]) -> None:
    """Makes sure that Slurm's commands are here.

    Raises:
      LaunchError: naming those that are not.
    """
    absent = [command for command in commands if shutil.which(command) is None]
    if absent:
        raise _absent(absent)


def _absent(commands: Sequence[str]) -> LaunchError:
    return LaunchError(f"{', '.join(commands)} not on PATH: --launch=slurm needs Slurm's commands here")
