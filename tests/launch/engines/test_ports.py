import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from classact.launch.engines import ports as ports_lib
from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.ports import (
    LoopbackPorts,
    PortsFrom,
    PortTakenError,
    answers,
    check_closed,
    free_ports,
    held,
)


def test_fixed_ports_follow_each_other_on_all_hosts():
    ports = PortsFrom(20_000)
    assert [ports("a"), ports("b"), ports("a")] == [20_000, 20_001, 20_002]


@pytest.mark.parametrize("base", [0, 1023, 65_001])
def test_a_base_outside_the_range_is_refused(base):
    with pytest.raises(ValueError, match=f"base port {base}: .*1024.*65000"):
        PortsFrom(base)


def test_fixed_ports_end_with_the_last_one():
    ports = PortsFrom(65_000)
    assert [ports("a") for _ in range(536)][-1] == 65_535
    with pytest.raises(LaunchError, match="more ports"):
        ports("a")


def test_launchers_on_one_machine_never_share_a_port():
    with LoopbackPorts(seed=1) as first, LoopbackPorts(seed=1) as second:
        mine, theirs = [first() for _ in range(5)], [second() for _ in range(5)]
    with LoopbackPorts(seed=1) as third:
        after = [third() for _ in range(5)]

    # One seed, so the second met each of the first's ports and passed it by.
    assert not set(mine) & set(theirs)
    assert after == mine


def test_picked_ports_are_out_of_the_way_of_outgoing_connections():
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with LoopbackPorts() as ports:
        assert all(20_000 <= ports() < max(first_outgoing, 21_000) for _ in range(20))


def test_a_port_in_use_is_not_picked():
    with LoopbackPorts(seed=2) as ports:
        expected = ports()
    with socket.create_server(("", expected)), LoopbackPorts(seed=2) as ports:
        assert ports() != expected


def test_ports_cannot_be_picked_elsewhere():
    with LoopbackPorts() as ports, pytest.raises(LaunchError, match="'far'"):
        ports("far")


def test_a_server_answers_while_it_is_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert answers(address)
    assert not answers(address)


def test_closed_ports_pass():
    with LoopbackPorts() as ports:
        check_closed([("learner", f"127.0.0.1:{ports()}"), ("replay", f"127.0.0.1:{ports()}")])


def test_an_open_port_is_named_with_its_task():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(PortTakenError, match=f"task replay: .*{address}"):
            check_closed([("replay", address)])


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("listens", [False, True])
def test_a_port_that_somebody_has_is_taken_whether_it_answers_or_is_shared(listens, shares):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        other.bind(("", 0))
        if listens:
            # With its queue full: who connects waits.
            other.listen(0)
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with contextlib.ExitStack() as waiting:
            for _ in range(int(listens)):
                waiting.enter_context(socket.create_connection(("127.0.0.1", int(address.split(":")[1])), 1))
            with pytest.raises(PortTakenError, match=f"task replay: .*{address}"):
                check_closed([("replay", address)])


def test_a_server_on_a_unix_socket_that_was_killed_just_now_is_waited_for(tmp_path, monkeypatch):
    address = f"unix:{tmp_path}/server"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/server")
    listener.listen()
    looks = []

    def answers_once(asked):
        found = answers(asked)
        looks.append(found)
        listener.close()
        return found

    monkeypatch.setattr(ports_lib, "answers", answers_once)
    check_closed([("replay", address)])
    assert looks == [True, False]
    monkeypatch.setattr(ports_lib, "answers", lambda _: True)
    monkeypatch.setattr(ports_lib, "_ENDING_SECONDS", 0.1)
    with pytest.raises(PortTakenError, match=f"task replay: something already listens on {address}"):
        check_closed([("replay", address)])


def test_two_servers_with_one_address_are_named():
    with pytest.raises(PortTakenError, match="learner and replay"):
        check_closed([("learner", "127.0.0.1:9"), ("replay", "127.0.0.1:9")])


def test_free_ports_are_printed_where_they_are_found():
    command = [sys.executable, "-m", "classact.launch.engines.ports", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    ports = {int(port) for port in done.stdout.split()}
    assert len(ports) == 3
    for port in ports:
        socket.create_server(("", port)).close()


def test_two_programs_with_one_port_cannot_both_start():
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    with (
        held("learner", [address]),
        pytest.raises(PortTakenError, match=f"inference: another program was given {address}"),
        held("inference", [address]),
    ):
        pass
    with held("inference", [address]):
        pass
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(PortTakenError, match=f"learner: something already listens on {address}"),
        held("learner", [address]),
    ):
        pass
