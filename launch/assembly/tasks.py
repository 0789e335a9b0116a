"""Turns a program into tasks: placed, addressed, serialised.

A task is a command that any engine can start on its host: a local process, a
step of a Slurm job, a Ray task. It is made with Launchpad's own pieces, but not
through `lp.launch`, whose launch types are a closed set and whose local ones
neither end the run when a node crashes nor run on other hosts.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from classact.calls import keys as keys_lib
from classact.calls.addresses import unix_path
from classact.launch.assembly import replay_node
from classact.launch.assembly.launchpad import lp, serialization
from classact.launch.engines.entry import Entry
from classact.launch.engines.folders import make_private
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.ports import LOOPBACK
from classact.launch.engines.resources import Resources, check_labels, common_environment, resources_of
from classact.launch.engines.task import STOP_STATUS, Task, remove_files

# Launchpad's name for the address of a `CourierNode`.
_CALLS = "courier"
# What serves at addresses of these names listens on a Unix socket, or over TCP asks for keys.
_SERVE_ON_SOCKETS = frozenset({_CALLS, replay_node.ADDRESS})
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class FixedAddress(lp.AbstractAddressBuilder):
    """An address that is known when the program is launched."""

    def __init__(self, address: str) -> None:
        self._address = address

    def build(self) -> str:
        """Returns "host:port" or "unix:/path"."""
        return self._address


def stop_program() -> None:
    """What `lp.stop()` does inside a task: ends it with `STOP_STATUS`."""
    raise SystemExit(STOP_STATUS)


def on_this_machine(label: str, index: int) -> str:
    """Places every node on the loopback interface of this machine."""
    del label, index
    return LOOPBACK


def make_tasks(
    program: lp.Program,
    *,
    workdir: Path,
    ports: Callable[[str], int],
    place: Callable[[str, int], str] = on_this_machine,
    address_of: Callable[[str], str] = lambda host: host,
    sockets: Callable[[str], str] | None = None,
    resources: Mapping[str, Resources] | None = None,
    own_environment: Callable[[str, int], Mapping[str, str]] = lambda label, index: {},
) -> list[Task]:
    """Places, addresses and serialises every node of a program.

    Writes `<workdir>/tasks/<label>.pkl` per group (`engines.task.remove_data_files`
    deletes them), in a folder that is this user's alone, and creates `<workdir>/logs`. If nodes call
    each other over TCP, writes new keys to `<workdir>/keys.json`, for which see `calls.keys`.
    Nothing is started. Afterwards the program's addresses are bound, so that
    `endpoints` can list them.

    Args:
      program: the program; may be made into tasks again, with new addresses.
      workdir: the run's directory; every host must see it under this path.
      ports: gives a free port on a host at each call: `LoopbackPorts` on this
        machine, `PortsFrom` on others.
      place: host of a node, from its label and its index in the group.
      address_of: where other hosts reach a host; its name by default.
      sockets: gives the Unix address of a task's server, where all nodes are on this
        machine: `PrivateSockets`. Servers that cannot have one get a port.
      resources: limits by label, or by first parts of labels; see `resources_of`.
      own_environment: more variables of a node, from its label and its index in the
        group; they win.

    Returns:
      The tasks in the program's order.

    Raises:
      LaunchError: if a label is unusable, two tasks would have one name, a node
        cannot be serialised, `<workdir>/tasks` is another user's, or `resources`
        names no label of the program.
    """
    resources = resources or {}
    names = task_names(program)
    check_labels(resources, program.groups)
    hosts = {key: place(*key) for key in names}
    addresses = {host: address_of(host) for host in hosts.values()}
    for key, node in _nodes(program):
        # Not node._initialize_context: the stopper that it pickles signals the
        # launcher's process id on whatever host the node runs.
        node.launch_context.initialize(lp.LaunchType.LOCAL_MULTI_PROCESSING, None, stop_program)
        for handle in node.input_handles:
            handle.connect(node, key[0])
        bind(node, names[key], functools.partial(_over_tcp, hosts[key], addresses, ports), sockets)

    workdir = workdir.absolute()
    (workdir / "logs").mkdir(parents=True, exist_ok=True)
    keys = _write_keys(program, workdir)
    data_files = _serialise(program, workdir / "tasks")
    common = {**common_environment(addresses.values()), **keys}
    tasks = []
    for label, nodes in program.groups.items():
        env = {**common, **resources_of(label, resources).environment()}
        for index, node in enumerate(nodes):
            name = names[label, index]
            tasks.append(
                Task(
                    name=name,
                    label=label,
                    index=index,
                    host=hosts[label, index],
                    command=_command(data_files[label], index),
                    env={**env, **own_environment(label, index)},
                    addresses=tuple(address.resolve() for address in node.addresses),
                    data_file=data_files[label],
                    log_path=workdir / "logs" / f"{name}.log",
                )
            )
    return tasks


def task_names(program: lp.Program) -> dict[tuple[str, int], str]:
    """Names every node: its label with "-" for "/", and its index if it has siblings.

    "replay/icons" alone in its group is `replay-icons`; the second of several
    nodes "inference/icons" is `inference-icons-1`.

    Returns:
      Name by (label, index in the group), in the program's order.

    Raises:
      LaunchError: if a label cannot be part of a file name or two names are equal.
    """
    names: dict[tuple[str, int], str] = {}
    groups: dict[str, str] = {}
    for label, nodes in program.groups.items():
        other = groups.setdefault(_file_name(label), label)
        if other != label:
            raise LaunchError(f"labels {other!r} and {label!r} make the same file name; rename one")
        if not _LABEL.fullmatch(label):
            raise LaunchError(
                f"label {label!r}: must be made of letters, digits, '_', '-' and '.', in parts joined by '/'"
            )
        for index in range(len(nodes)):
            suffix = f"-{index}" if len(nodes) > 1 else ""
            name = _file_name(label) + suffix
            if name in names.values():
                raise LaunchError(f"label {label!r}: another node is already named {name!r}")
            names[label, index] = name
    return names


def endpoints(program: lp.Program) -> dict[str, list[str]]:
    """Lists the servers of a launched program (or one made into tasks).

    Returns:
      Address of each server by its group's label, in the group's order;
      groups without a server are left out.
    """
    addresses = {
        label: [address.resolve() for node in nodes for address in node.addresses]
        for label, nodes in program.groups.items()
    }
    return {label: found for label, found in addresses.items() if found}


def bind(
    node: lp.PyNode, name: str, over_tcp: Callable[[], str], sockets: Callable[[str], str] | None
) -> None:
    """Gives a node's servers their addresses.

    Args:
      node: its addresses are named after what serves there.
      name: of its task.
      over_tcp: gives a new "host:port".
      sockets: gives a new "unix:/path" from a name; None: the callers are elsewhere.
    """
    for address in node.addresses:
        on_socket = sockets is not None and address.name in _SERVE_ON_SOCKETS
        address.bind(FixedAddress(sockets(name) if sockets and on_socket else over_tcp()))


def _over_tcp(host: str, addresses: Mapping[str, str], ports: Callable[[str], int]) -> str:
    return f"{addresses[host]}:{ports(host)}"


def _nodes(program: lp.Program) -> Iterator[tuple[tuple[str, int], lp.PyNode]]:
    """Each node with its label and its place in the group."""
    for label, nodes in program.groups.items():
        for index, node in enumerate(nodes):
            yield (label, index), node


def _write_keys(program: lp.Program, workdir: Path) -> dict[str, str]:
    """Writes keys for the calls over TCP, if there are any; returns the variable that names their file."""
    called = [
        address.resolve()
        for _, node in _nodes(program)
        for address in node.addresses
        if address.name in _SERVE_ON_SOCKETS
    ]
    if all(unix_path(address) is not None for address in called):
        return {}
    path = workdir / keys_lib.FILE_NAME
    keys_lib.Keys.make().save(path)
    return {keys_lib.VARIABLE: str(path)}


def _serialise(program: lp.Program, folder: Path) -> dict[str, Path]:
    """Writes one file per group; its nodes' functions hold the bound addresses."""
    make_private(folder)
    files = {label: folder / f"{_file_name(label)}.pkl" for label in program.groups}
    with contextlib.ExitStack() as undo:
        undo.callback(remove_files, files.values())
        for label, nodes in program.groups.items():
            try:
                functions = [Entry(node.function) for node in nodes]
                serialization.serialize_functions(str(files[label]), label, functions)
            except RuntimeError as error:
                raise LaunchError(
                    f"nodes {label!r} cannot be sent to another process: {error.__cause__ or error}; give "
                    "them picklable arguments, or build what is not picklable inside the node (lp.Deferred)"
                ) from error
        undo.pop_all()
    return files


def _command(data_file: Path, index: int) -> tuple[str, ...]:
    return (
        sys.executable,
        "-m",
        "classact.launch.assembly.run_node",
        f"--data_file={data_file}",
        f"--lp_task_id={index}",
        # With a notice of its own, Launchpad ends a process that is already
        # exiting by SIGALRM; ending what does not stop is the engine's work.
        "--lp_termination_notice_secs=-1",
    )


def _file_name(label: str) -> str:
    return label.replace("/", "-")
