"""A Slurm of several nodes on this machine, with daemons of its own, for tests.

    python tests/launch/slurm_cluster.py

starts one and a shell in which `sbatch`, `srun` and `classact train --launch=slurm`
use it; the shell's end is the cluster's.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

NODES = {"n1": "cpu", "n2": "cpu", "n3": "accelerator"}
_DAEMONS = ("munged", "slurmctld", "slurmd")
_CLIENTS = ("sbatch", "srun", "scancel", "scontrol", "sinfo")
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0

# More CPUs and memory than there are are fine with config_overrides. No GPU is
# needed either: any device file stands for one, as nothing confines the steps.
_CONF = """
ClusterName=classact
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldTimeout=20
SlurmdTimeout=20
KillWait=15
MinJobAge=300
InactiveLimit=0
ReturnToService=2
RequeueExit=143
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
"""
_SIZE = "CPUs=8 CoresPerSocket=4 ThreadsPerCore=2 RealMemory=8000"


def missing():
    """Says why no cluster can be started here; "" if one can."""
    absent = [name for name in (*_DAEMONS, *_CLIENTS) if shutil.which(name, path=_path()) is None]
    if absent:
        return (
            f"Slurm is not installed: no {', '.join(absent)} on PATH (apt-get install slurmctld slurmd munge)"
        )
    if os.geteuid() != 0:
        return "only root can start a Slurm here"
    return ""


def _path():
    """Debian keeps daemons where a user's PATH need not lead."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class SlurmCluster:
    """Three nodes of 8 GB and 4 cores with 2 threads, in partitions "cpu" and "accelerator".

    The one in "accelerator" has 2 GPUs. Jobs that end with status 143 and may be
    requeued are.

    Attributes:
        environment: for processes that are to use it.
    """

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)
        self._daemons = []
        self.environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(self._folder / "slurm.conf")}
        # Of a Slurm job in which the tests themselves run.
        for name in [name for name in self.environment if name.startswith("SLURM_") and name != "SLURM_CONF"]:
            del self.environment[name]

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception):
        self.stop()

    def run(self, *command, **options):
        """Runs a command; returns its standard output."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, **options
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self):
        """Lists the jobs and steps that there are: "5 RUNNING", "5.0 RUNNING"."""
        jobs = self.run("squeue", "-h", "-o", "%i %T").splitlines()
        return jobs + self.run("squeue", "-h", "--steps", "-o", "%i %j").splitlines()

    def wait_until_empty(self, seconds=_STOP_SECONDS):
        """Waits until no job is left; fails after the time."""
        _await(lambda: not self.jobs(), seconds, lambda: f"jobs left: {self.jobs()}")

    def stop(self):
        """Ends all jobs and every process that this object started; safe to call twice."""
        if len(self._daemons) == 2 + len(NODES):
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.run("scancel", "--user=root")
                self.wait_until_empty()
        # Those that were started last first: munged must outlive those that use it.
        while self._daemons:
            daemon = self._daemons.pop()
            daemon.terminate()
            try:
                daemon.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(_STOP_SECONDS)

    def _start(self):
        folder = self._folder
        host = socket.gethostname().split(".")[0]
        controller, *ports = _free_ports(1 + len(NODES))
        lines = [_CONF.format(host=host, folder=folder, port=controller)]
        for (node, partition), port in zip(NODES.items(), ports, strict=True):
            gpus = " Gres=gpu:2" if partition == "accelerator" else ""
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {_SIZE}{gpus}")
        for partition in dict.fromkeys(NODES.values()):
            nodes = ",".join(node for node, its in NODES.items() if its == partition)
            default = "YES" if partition == "cpu" else "NO"
            lines.append(f"PartitionName={partition} Nodes={nodes} Default={default} MaxTime=INFINITE")
        (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        accelerators = ",".join(node for node, partition in NODES.items() if partition == "accelerator")
        devices = "".join(
            f"NodeName={accelerators} Name=gpu File={device}\n" for device in ("/dev/null", "/dev/zero")
        )
        (folder / "gres.conf").write_text(devices)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={key}",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        )
        _await((folder / "munge.socket").exists, _START_SECONDS, lambda: "munged does not start")
        self._daemon("slurmctld", "-D", "-f", folder / "slurm.conf")
        for node in NODES:
            self._daemon("slurmd", "-D", "-f", folder / "slurm.conf", "-N", node)
        _await(self._is_idle, _START_SECONDS, self._state)

    def _daemon(self, name, *arguments):
        # Signals of the terminal are for the tests.
        with (self._folder / f"{name}.out").open("ab") as out:
            command = [shutil.which(name, path=_path()), *map(str, arguments)]
            daemon = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _is_idle(self):
        for daemon in self._daemons:
            assert daemon.poll() is None, f"{daemon.args} ended: {self._state()}"
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%T"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.split() == ["idle"] * len(NODES)

    def _state(self):
        """What the daemons said, for a failure."""
        logs = sorted({*self._folder.glob("*.out"), *self._folder.glob("*.log")})
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


def _free_ports(count):
    """Ports on which nobody listens; held open together, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]


def _await(condition, seconds, state):
    """Waits until something holds; fails with `state()` after the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, state()
        time.sleep(0.1)


def main():
    reason = missing()
    if reason:
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, SlurmCluster(folder) as cluster:
        subprocess.run(
            sys.argv[1:] or [os.environ.get("SHELL", "bash")], env=cluster.environment, check=False
        )


if __name__ == "__main__":
    main()
