"""A network of its own: what is in it, who reaches it, and that nothing else changes."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from classact.launch.engines import isolation

CONFIG = pathlib.Path(isolation.__file__).parents[2] / "experiments" / "configs" / "classification.py"
# An ordinary user who may read what root may.
ORDINARY = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
# A user who owns a machine on which there can be no more networks.
NO_NETWORKS = [
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"',
    "sh",
]

# Listens on every interface, reaches itself, and says what it sees.
SERVER = """
import json, os, signal, socket, sys
import psutil

server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
port = server.getsockname()[1]
for host in ("127.0.0.1", "::1"):
    socket.create_connection((host, port), timeout=5).close()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(json.dumps({
    "port": port,
    "up": [name for name, stats in psutil.net_if_stats().items() if stats.isup],
    "pid": os.getpid(),
    "group": os.getpgrp(),
    "session": os.getsid(0),
    "user": os.getuid(),
    "hangup": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
    "arguments": sys.argv[1:],
    "capable": int(open("/proc/self/status").read().split("CapEff:")[1].split()[0], 16) > 0,
}), flush=True)
signal.pause()
"""


def isolated(*command):
    return [sys.executable, "-I", "-S", isolation.__file__, *map(str, command)]


def skip_unless(*probe):
    """Skips where util-linux cannot do it either."""
    done = subprocess.run([*probe, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine gives no namespaces: {done.stderr.strip()}")


@pytest.fixture(params=["as the user of the tests", "as an ordinary user"])
def user(request):
    """What goes before a command; twice the same where the tests' user is an ordinary one."""
    prefix = ORDINARY if os.geteuid() == 0 and "ordinary" in request.param else []
    skip_unless(*prefix, "unshare", *([] if os.geteuid() == 0 and not prefix else ["--user"]), "--net")
    return prefix


@pytest.fixture
def server(user):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = subprocess.Popen(
        [*user, *isolated(sys.executable, "-c", SERVER, "--one", "two words")],
        stdout=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGHUP, before)
    with process:
        line = process.stdout.readline()
        assert line, process.wait(timeout=10)
        yield process, json.loads(line)
        process.kill()


def own_addresses():
    """Every address of this machine at which a server on all interfaces would answer."""
    found = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
    return [a.address for a in found if a.family in (socket.AF_INET, socket.AF_INET6)]


def test_a_server_on_all_interfaces_is_reached_from_inside_alone(server):
    _, said = server
    assert said["up"] == ["lo"]
    assert "127.0.0.1" in own_addresses()
    for address in own_addresses():
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, said["port"]), timeout=5)


def test_nothing_outside_is_reached_from_inside(user):
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)"
        done = subprocess.run([*user, *isolated(sys.executable, "-c", ask)], capture_output=True, text=True)
    assert done.returncode == 1 and "ConnectionRefusedError" in done.stderr


def test_all_else_is_as_without_it(server, user):
    process, said = server
    assert said["pid"] == process.pid
    assert (said["group"], said["session"]) == (os.getpgrp(), os.getsid(0))
    assert said["user"] == (1000 if user else os.geteuid())
    assert said["capable"] == (not user and os.geteuid() == 0)
    assert said["hangup"]
    assert said["arguments"] == ["--one", "two words"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 7


def test_the_network_ends_with_the_last_process_in_it(server):
    process, said = server
    assert f":{said['port']:04X} " in pathlib.Path(f"/proc/{process.pid}/net/tcp6").read_text()
    assert isolation.way_in({"network": "net:[1]", "users": "user:[1]", "pid": process.pid}).startswith(
        f"nsenter --target {process.pid} --net"
    )
    process.kill()
    process.wait(timeout=10)
    assert not pathlib.Path(f"/proc/{process.pid}").exists()


def test_this_process_has_no_network_of_its_own(monkeypatch):
    assert not isolation.is_inside() and isolation.described() is None
    # Of another network, in an environment that was carried over.
    monkeypatch.setenv("CLASSACT_NETWORK", "net:[1]")
    assert not isolation.is_inside()
    monkeypatch.setenv("CLASSACT_NETWORK", os.readlink("/proc/self/ns/net"))
    described = isolation.described()
    assert described["pid"] == os.getpid()
    assert isolation.way_in(described) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [("localhost", True), ("127.0.1.1", True), ("192.0.2.2", False), ("no.invalid", False)],
)
def test_where_this_machines_name_leads(monkeypatch, name, expected):
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert isolation.name_is_loopback() == expected


def test_a_machine_without_namespaces_is_one_line_before_anything_starts(tmp_path):
    skip_unless("unshare", "--user", "--map-root-user")
    cli = [sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()"]
    arguments = [f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}", "--config.train_data=digits"]
    done = subprocess.run(
        [*NO_NETWORKS, *cli, "train", *arguments, "--isolate"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("classact: --isolate: ") and "No space left" in line and "SECURITY.md" in line
    assert not done.stdout and not (tmp_path / "run").exists()
