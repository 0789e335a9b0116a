"""On one machine a running program has no port: nobody else reaches anything of it."""

import contextlib
import json
import os
import pathlib
import socket
import stat

import psutil
import pytest
from program_runs import environment, start, wait_for_line

from classact.calls import addresses

_PORTS = range(1, 1 << 16)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path


@contextlib.contextmanager
def running(place, launch):
    """Yields the run directory of a program that has trained, and goes on."""
    process = start(
        place, "run", "--config.policy=hard_learner", "--config.steps=100000", f"--launch={launch}"
    )
    try:
        wait_for_line(place, "run", process)
        yield place / "run"
    finally:
        process.terminate()
        assert process.wait(120) != 0


def processes_with(variable, value):
    """All processes that were started with a variable of this value, whoever started them."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(variable) == value:
                found[process.pid] = process
    return found


def ports_of(process):
    """What others could reach of a process: (address, port), TCP and UDP."""
    return [
        tuple(found.laddr)
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN or (found.type == socket.SOCK_DGRAM and not found.raddr)
    ]


def own_addresses():
    """Every address at which this machine's processes can be reached over TCP."""
    found = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
    return [a.address for a in found if a.family in (socket.AF_INET, socket.AF_INET6)]


def open_ports(host):
    """The TCP ports of an address at which somebody answers."""
    family, _, _, _, (address, _, *scope) = socket.getaddrinfo(host, 1, type=socket.SOCK_STREAM)[0]
    found = []
    for port in _PORTS:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(5.0)
            # From a port of its own a probe can meet itself.
            if probe.connect_ex((address, port, *scope)) == 0 and probe.getsockname() != probe.getpeername():
                found.append(port)
    return found


def check_ports(workdir):
    ours = processes_with("TMPDIR", environment(workdir.parent)["TMPDIR"])
    # The replay's server among them.
    assert any("program.py" in " ".join(process.cmdline()) for process in ours.values())
    assert {pid: ports_of(process) for pid, process in ours.items()} == {pid: [] for pid in ours}
    return ours


def check_scan(ours):
    """Tries every port of the machine, which takes seconds."""
    with socket.create_server(("", 0)) as known:
        port = known.getsockname()[1]
        assert ports_of(psutil.Process()) == [("0.0.0.0", port)]
        open_at = {host: open_ports(host) for host in own_addresses()}
    assert port in open_at["127.0.0.1"]
    owners = {c.laddr.port: c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert not [(host, p) for host, ports in open_at.items() for p in ports if owners.get(p) in ours]


def check_sockets(workdir):
    served = [a for found in json.loads((workdir / "endpoints.json").read_text()).values() for a in found]
    assert len(served) == 3  # Learner, inference server, replay server.
    for address in served:
        path = pathlib.Path(addresses.unix_path(address))
        assert addresses.answers(address)
        found = path.parent.stat()
        assert stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.geteuid()


@pytest.mark.parametrize("launch", ["processes", "threads"])
def test_a_running_program_has_no_port_and_its_sockets_are_this_users_alone(place, launch):
    with running(place, launch) as workdir:
        ours = check_ports(workdir)
        check_sockets(workdir)
        if launch == "processes":
            check_scan(ours)
