"""Ray hosts on this machine, and a launcher of puppets on them; both are programs of their own.

    python ray_machines.py cluster FOLDER         hosts 127.0.0.2 to 127.0.0.4, until the standard input ends
    python ray_machines.py launch WORKDIR PORT [RESTARTS NOTICE]
                                                  launches puppets there, prints the outcome

The first prints one line, {"address": …, "hosts": {address: {"id": …, "raylet": process id}}},
and takes hosts away whose addresses it reads.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

# Not 127.0.0.1, which Ray takes for this machine's address on its network.
HOSTS = {
    "127.0.0.2": {"num_cpus": 2},
    "127.0.0.3": {"num_cpus": 2},
    "127.0.0.4": {"num_cpus": 2, "num_gpus": 1, "resources": {"trainer": 1}},
}


class Machines:
    """The hosts, in a process of their own.

    Attributes:
        hosts: {"id": Ray's, "raylet": process id} by address.
        environment: of launchers that are to use them.
    """

    def __init__(self, folder):
        """Waits until all are there; `folder` must have a short name."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, "cluster", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = json.loads(self._process.stdout.readline())
        self.hosts = said["hosts"]
        self.environment = {**os.environ, "RAY_ADDRESS": said["address"]}

    def host_of(self, pid):
        """Address of the host on which Ray started a process."""
        ancestors = {process.pid for process in psutil.Process(pid).parents()}
        (found,) = (address for address, host in self.hosts.items() if host["raylet"] in ancestors)
        return found

    def remove(self, address):
        """Takes a host away without a word."""
        print(address, file=self._process.stdin, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait(60)


def run_cluster(folder):
    # Ray notes the address of the last cluster of a machine: not in everybody's folder.
    os.environ["RAY_TMPDIR"] = folder
    os.makedirs(os.path.join(folder, "ray"))
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    nodes = {}
    for address, resources in HOSTS.items():
        nodes[address] = cluster.add_node(
            node_ip_address=address,
            object_store_memory=80_000_000,
            include_dashboard=False,
            # Hosts do not share a folder; sockets in it leave no room for a long name.
            temp_dir=os.path.join(folder, address[-1]),
            **resources,
        )
    hosts = {
        address: {"id": node.node_id, "raylet": node.all_processes["raylet"][0].process.pid}
        for address, node in nodes.items()
    }
    print(json.dumps({"address": cluster.address, "hosts": hosts}), flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes[line.strip()], allow_graceful=False)
    cluster.shutdown()


def launch(workdir, port, per_hour=0, notice=8):
    import cloudpickle

    from classact.launch.assembly.launchpad import lp

    sys.path.insert(0, str(Path(__file__).parent))
    import puppets

    from classact.experiments import base
    from classact.launch.engines.ray.run import run_actors

    cloudpickle.register_pickle_by_value(puppets)
    program = lp.Program("puppets")
    program.add_node(lp.PyNode(puppets.act, port, "learner"), label="learner")
    doubler = program.add_node(lp.CourierNode(puppets.Doubler), label="inference/icons")
    program.add_node(lp.PyNode(puppets.act, port, "run_loop-icons", doubler), label="run_loop/icons")
    cluster = base.get_config().to_dict()["cluster"]
    cluster["learner"].update({"gpus": 1, "memory_gb": 0.1, "partition": "trainer"})
    cluster["inference"]["cpus"] = cluster["run_loop"]["cpus"] = 2
    changes = {
        "hung_seconds": puppets.HUNG,
        "stop_notice_seconds": float(notice),
        "restarts_per_hour": per_hour,
        "cluster": cluster,
    }
    outcome = run_actors(puppets.job_of(program, workdir, **changes))
    found = {"status": outcome.status, "message": outcome.message, "traceback": outcome.traceback}
    ends = {name: [end.exit_status, end.killed] for name, end in outcome.tasks.items()}
    restarts = dict(outcome.restarts)
    print(json.dumps({**found, "failed_task": outcome.failed_task, "ends": ends, "restarts": restarts}))
    return outcome.exit_status


if __name__ == "__main__":
    if sys.argv[1] == "cluster":
        run_cluster(sys.argv[2])
    else:
        sys.exit(launch(sys.argv[2], *map(int, sys.argv[3:])))
