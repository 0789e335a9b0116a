"""Ports for the program's servers: chosen, kept apart, and checked before a start.

    python -m classact.launch.engines.ports COUNT

prints that many free ports of the machine that it runs on: how the launcher learns
of ports on other hosts.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from classact.calls.addresses import answers, host_and_port, unix_path
from classact.launch.engines.outcome import LaunchError

LOOPBACK = "127.0.0.1"
_FIRST_PORT = 20_000  # Below are those that `ray start` gives to its workers.
# What the kernel may take to end a process that is killed, and between two looks whether it has.
_ENDING_SECONDS = 5.0
_POLL_SECONDS = 0.05


class PortTakenError(LaunchError):
    """Something already listens where one of the program's servers would."""


class PortsFrom:
    """The ports `base`, `base + 1`, …, whatever the host.

    For clusters: a port that is free here says nothing about another host.
    """

    def __init__(self, base: int) -> None:
        if not 1024 <= base <= 65_000:
            raise ValueError(f"base port {base}: must lie between 1024 and 65000")
        self._next = base

    def __call__(self, host: str) -> int:
        """Returns the next port, for any host."""
        del host
        port, self._next = self._next, self._next + 1
        if port > 65_535:
            raise LaunchError("the program needs more ports than there are above the base port")
        return port


class LoopbackPorts:
    """Free ports on this machine, each claimed until `close` (or this process's end).

    They lie below the range from which the kernel takes the ports of outgoing
    connections: a client that tries a server's port before the server is up
    could otherwise be given that very port, and connect to itself. A claim is
    an abstract Unix socket named after the port, which keeps launchers on one
    machine apart without touching the port, and vanishes with its owner.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._claims: list[socket.socket] = []
        self._candidates = _shuffled_ports(random.Random(seed))

    def __call__(self, host: str = LOOPBACK) -> int:
        """Returns a free port that no other launcher on this machine will take.

        Raises:
          LaunchError: if `host` is not this machine, or no port is left.
        """
        if host not in (LOOPBACK, "localhost"):
            raise LaunchError(f"ports can be picked on this machine only, not on {host!r}; use PortsFrom")
        for port in self._candidates:
            claim = _claim(port)
            if claim is not None:
                self._claims.append(claim)
                if _can_bind(port):
                    return port
        raise LaunchError("no free port is left on this machine")

    def close(self) -> None:
        """Gives the claims back; safe to call twice."""
        while self._claims:
            self._claims.pop().close()

    def __enter__(self) -> LoopbackPorts:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def free_ports(count: int) -> list[int]:
    """Finds free ports on this machine; they are nobody's until `held` claims them.

    Raises:
      LaunchError: if there are not that many.
    """
    with LoopbackPorts() as ports:
        return [ports() for _ in range(count)]


@contextlib.contextmanager
def held(task: str, addresses: Collection[str]) -> Iterator[None]:
    """Claims the ports of a task on the host where it runs, while the context lasts.

    Its server listens only after seconds of imports: without a claim, two programs
    that were given one port could both find it closed.

    Args:
      task: name of the task.
      addresses: of each of its servers, "host:port" or "unix:/path".

    Raises:
      PortTakenError: if another program has claimed a port, or listens on it.
    """
    with contextlib.ExitStack() as claims:
        for address in addresses:
            if unix_path(address) is not None:
                continue  # In a folder that is this program's alone.
            claim = _claim(host_and_port(address)[1])
            if claim is None:
                raise _taken(task, address, "another program was given")
            claims.enter_context(claim)
        check_closed((task, address) for address in addresses)
        yield


def check_closed(servers: Iterable[tuple[str, str]]) -> None:
    """Makes sure that nobody has the addresses yet; call it on their host.

    gRPC shares ports: a second server of Reverb's on one port starts without an error,
    and clients then reach either of the two.
    Binding is tried as well as connecting: what has a port need not listen, or answer.
    Blocks for some seconds while something listens on a Unix socket.

    Args:
      servers: (task name, "host:port" or "unix:/path") of each server.

    Raises:
      PortTakenError: naming the task and the address; also if two of the
        program's own servers have one address.
    """
    seen: dict[str, str] = {}
    for task, address in servers:
        if address in seen:
            raise PortTakenError(f"tasks {seen[address]} and {task} were both given the address {address}")
        seen[address] = task
        if _answers_still(address) or not _can_have(address):
            raise _taken(task, address, "something already listens on")


def _answers_still(address: str) -> bool:
    """Whether somebody listens.

    On a Unix socket, which only this program has, that may be a server that was killed just
    now, with its task: it is given the moment that its end takes.
    """
    deadline = time.monotonic() + (_ENDING_SECONDS if unix_path(address) is not None else 0.0)
    pause = threading.Event()
    while answers(address):
        if time.monotonic() >= deadline:
            return True
        pause.wait(_POLL_SECONDS)
    return False


def _taken(task: str, address: str, what: str) -> PortTakenError:
    return PortTakenError(
        f"task {task}: {what} {address}; end it (a run that was left behind?) or start again"
    )


def _shuffled_ports(generator: random.Random) -> Iterator[int]:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    last = max(int(text.split()[0]), _FIRST_PORT + 1000)
    ports = list(range(_FIRST_PORT, last))
    generator.shuffle(ports)
    return iter(ports)


def _claim(port: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0classact-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _can_have(address: str) -> bool:
    # What a server that was killed left of a Unix socket is in nobody's way.
    return unix_path(address) is not None or _can_bind(host_and_port(address)[1])


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Lets the port of a server that just ended pass; a listening one still fails.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    print(*free_ports(int(sys.argv[1])))
