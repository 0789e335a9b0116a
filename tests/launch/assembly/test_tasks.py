import pickle
import sys
import threading

import pytest

from classact.calls import Keys, exposed, keys
from classact.launch.assembly.launchpad import address, lp
from classact.launch.assembly.tasks import (
    endpoints,
    make_tasks,
    stop_program,
    task_names,
)
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.ports import LoopbackPorts, PortsFrom
from classact.launch.engines.resources import Resources
from classact.launch.engines.sockets import PrivateSockets
from classact.launch.engines.task import STOP_STATUS, remove_data_files


class Server:
    @exposed
    def ping(self):
        return "pong"


def nothing(*clients):
    return clients


def program_of(*labels):
    program = lp.Program("tasks")
    for label in labels:
        program.add_node(lp.PyNode(nothing), label=label)
    return program


def distributed_program():
    """A learner, two inference servers that call it, and their run loop."""
    program = lp.Program("distributed")
    learner = program.add_node(lp.CourierNode(Server), label="learner")
    with program.group("inference/icons"):
        servers = [program.add_node(lp.CourierNode(Server)) for _ in range(2)]
    program.add_node(lp.PyNode(nothing, learner, *servers), label="run_loop/icons")
    return program


def host_of(label, index):
    return f"{label.split('/')[0]}{index}"


def test_every_node_becomes_a_placed_task(tmp_path):
    program = distributed_program()

    tasks = make_tasks(program, workdir=tmp_path, place=host_of, ports=PortsFrom(20_000))

    assert [(task.name, task.label, task.index, task.host, task.addresses) for task in tasks] == [
        ("learner", "learner", 0, "learner0", ("learner0:20000",)),
        ("inference-icons-0", "inference/icons", 0, "inference0", ("inference0:20001",)),
        ("inference-icons-1", "inference/icons", 1, "inference1", ("inference1:20002",)),
        ("run_loop-icons", "run_loop/icons", 0, "run_loop0", ()),
    ]
    assert endpoints(program) == {
        "learner": ["learner0:20000"],
        "inference/icons": ["inference0:20001", "inference1:20002"],
    }
    interpreter, *entry, data, index, notice = tasks[2].command
    assert (interpreter, entry) == (sys.executable, ["-m", "classact.launch.assembly.run_node"])
    arguments = [data, index, notice]
    assert arguments == [
        f"--data_file={tmp_path / 'tasks' / 'inference-icons.pkl'}",
        "--lp_task_id=1",
        "--lp_termination_notice_secs=-1",
    ]
    assert tasks[2].log_path == tmp_path / "logs" / "inference-icons-1.log"
    assert tasks[2].log_path.parent.is_dir()
    assert all("inference1" in task.env["no_proxy"].split(",") for task in tasks)


def test_the_data_file_holds_bound_nodes(tmp_path, monkeypatch):
    tasks = make_tasks(distributed_program(), workdir=tmp_path, place=host_of, ports=PortsFrom(20_000))

    # As in the task's process.
    monkeypatch.setenv(keys.VARIABLE, tasks[3].env[keys.VARIABLE])
    (function,) = pickle.loads(tasks[3].data_file.read_bytes())
    clients = function()

    assert [client.address for client in clients] == [
        "learner0:20000",
        "inference0:20001",
        "inference1:20002",
    ]


def test_nobody_else_may_read_or_write_the_data_files(tmp_path):
    (tmp_path / "tasks").mkdir(mode=0o755)
    make_tasks(distributed_program(), workdir=tmp_path, ports=PortsFrom(20_000))
    assert (tmp_path / "tasks").stat().st_mode & 0o777 == 0o700


def test_data_files_are_removed_with_their_folder(tmp_path):
    tasks = make_tasks(distributed_program(), workdir=tmp_path, ports=PortsFrom(20_000))
    assert len(list((tmp_path / "tasks").iterdir())) == 3

    remove_data_files(tasks)
    assert not (tmp_path / "tasks").exists()
    remove_data_files(tasks)  # Nothing is left, and that is no error.


def test_other_files_in_the_folder_stay(tmp_path):
    tasks = make_tasks(distributed_program(), workdir=tmp_path, ports=PortsFrom(20_000))
    other = tmp_path / "tasks" / "notes.txt"
    other.touch()

    remove_data_files(tasks)

    assert list((tmp_path / "tasks").iterdir()) == [other]


def test_a_program_can_be_placed_anew(tmp_path):
    program = distributed_program()
    make_tasks(program, workdir=tmp_path, ports=PortsFrom(20_000))

    tasks = make_tasks(program, workdir=tmp_path, ports=PortsFrom(30_000))

    assert tasks[0].addresses == ("127.0.0.1:30000",)


def test_local_tasks_get_free_ports_of_the_loopback_interface(tmp_path):
    with LoopbackPorts() as ports:
        tasks = make_tasks(distributed_program(), workdir=tmp_path, ports=ports)

    addresses = [found for task in tasks for found in task.addresses]
    assert len(set(addresses)) == 3
    assert all(found.startswith("127.0.0.1:") for found in addresses)


def test_local_tasks_get_sockets_and_no_keys(tmp_path):
    with LoopbackPorts() as ports, PrivateSockets(tmp_path / "sockets") as sockets:
        tasks = make_tasks(distributed_program(), workdir=tmp_path, ports=ports, sockets=sockets)

    addresses = [found for task in tasks for found in task.addresses]
    assert len(set(addresses)) == 3
    assert all(found.startswith(f"unix:{tmp_path}/sockets/") for found in addresses)
    assert addresses[0].endswith("-learner")
    assert all(keys.VARIABLE not in task.env for task in tasks)
    assert not (tmp_path / "keys.json").exists()


def test_what_cannot_have_a_socket_gets_a_port(tmp_path):
    program = lp.Program("hosts")
    node = lp.PyNode(nothing)
    node.allocate_address(address.Address("coordinator"))
    program.add_node(node, label="learner")
    with LoopbackPorts() as ports, PrivateSockets(tmp_path / "sockets") as sockets:
        (task,) = make_tasks(program, workdir=tmp_path, ports=ports, sockets=sockets)
    assert task.addresses[0].startswith("127.0.0.1:")
    assert keys.VARIABLE not in task.env


def test_calls_between_hosts_have_new_keys_for_this_user_alone(tmp_path):
    tasks = make_tasks(distributed_program(), workdir=tmp_path, ports=PortsFrom(20_000))
    path = tmp_path / "keys.json"
    assert {task.env[keys.VARIABLE] for task in tasks} == {str(path)}
    assert path.stat().st_mode & 0o777 == 0o600
    first = Keys.load(path)
    remove_data_files(tasks)
    assert not path.exists()

    make_tasks(distributed_program(), workdir=tmp_path, ports=PortsFrom(20_000))
    assert Keys.load(path) != first


def test_resources_reach_the_tasks_of_their_label(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    for name in ("NPROC", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, "the launcher's own")
    resources = {
        "inference": Resources(threads=2, cuda_visible_devices=""),
        "": Resources(jax_platforms="cpu", env={"TF_CPP_MIN_LOG_LEVEL": "0"}),
    }

    tasks = make_tasks(distributed_program(), workdir=tmp_path, ports=PortsFrom(20_000), resources=resources)

    learner, inference = tasks[0].env, tasks[1].env
    assert inference["NPROC"] == "2"
    assert inference["CUDA_VISIBLE_DEVICES"] == ""
    assert "JAX_PLATFORMS" not in inference
    assert learner["JAX_PLATFORMS"] == "cpu"
    assert "NPROC" not in learner
    assert (learner["TF_CPP_MIN_LOG_LEVEL"], inference["TF_CPP_MIN_LOG_LEVEL"]) == ("0", "2")


def test_a_nodes_own_environment_wins(tmp_path):
    tasks = make_tasks(
        distributed_program(),
        workdir=tmp_path,
        ports=PortsFrom(20_000),
        resources={"": Resources(threads=2, cuda_visible_devices="")},
        own_environment=lambda label, index: (
            {"CUDA_VISIBLE_DEVICES": str(index)} if label == "inference/icons" else {}
        ),
    )
    visible = {task.name: (task.env["CUDA_VISIBLE_DEVICES"], task.env["NPROC"]) for task in tasks}
    assert visible["learner"] == ("", "2")
    assert [visible[f"inference-icons-{index}"] for index in (0, 1)] == [("0", "2"), ("1", "2")]


def test_resources_for_no_label_are_refused(tmp_path):
    with pytest.raises(LaunchError, match=r"'learnr'.*learner, inference/icons, run_loop/icons"):
        make_tasks(
            distributed_program(),
            workdir=tmp_path,
            ports=PortsFrom(20_000),
            resources={"learnr": Resources(threads=1)},
        )


def test_what_cannot_be_serialised_is_named_and_leaves_no_file(tmp_path):
    program = program_of("learner")
    lock = threading.Lock()
    program.add_node(lp.PyNode(nothing, lock), label="evaluator/test")

    with pytest.raises(LaunchError, match=r"'evaluator/test'.*lock"):
        make_tasks(program, workdir=tmp_path, ports=PortsFrom(20_000))
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize("label", ["a b", "/a", "a/", "a//b", "..", "../a", "-a", "ä"])
def test_labels_that_are_no_file_names_are_refused(label):
    with pytest.raises(LaunchError, match="must be made of"):
        task_names(program_of(label))


@pytest.mark.parametrize("labels", [("a/b", "a-b"), ("a/b", "a/b", "a-b"), ("a", "a", "a-1")])
def test_equal_names_are_refused(labels):
    with pytest.raises(LaunchError, match=r"already named|same file name"):
        task_names(program_of(*labels))


def test_lp_stop_ends_a_task_with_its_own_status():
    with pytest.raises(SystemExit) as ended:
        stop_program()
    assert ended.value.code == STOP_STATUS
