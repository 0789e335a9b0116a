"""Addresses of servers: "host:port", or "unix:/absolute/path" on one machine."""

import ipaddress
import os
import socket

UNIX = "unix:"
# sockaddr_un has 108 bytes, the last of them zero.
LONGEST_PATH = 107
_CONNECT_SECONDS = 2.0


def unix_path(address: str) -> str | None:
    """The path of a Unix socket's address; None for "host:port"."""
    return address.removeprefix(UNIX) if address.startswith(UNIX) else None


def host_and_port(address: str) -> tuple[str, int]:
    """Splits "host:port"; an IPv6 host may stand in brackets.

    Raises:
        ValueError: if it is no such address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"address {address!r}: must be host:port, or unix:/path")
    return host.strip("[]"), int(port)


def answers(address: str) -> bool:
    """Returns whether something listens at an address; blocks for two seconds at most."""
    path = unix_path(address)
    try:
        if path is None:
            host, port = host_and_port(address)
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_CONNECT_SECONDS)
                probe.connect(path)
    except (OSError, ValueError):
        return False
    return True


def to_connect(address: str) -> str:
    """The address as ZeroMQ connects to it.

    Raises:
        ValueError: if it is no address, or its path is too long.
    """
    path = unix_path(address)
    if path is not None:
        return f"ipc://{_checked(path)}"
    host, port = host_and_port(address)
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def to_bind(address: str) -> list[str]:
    """The addresses that ZeroMQ is to try to listen at, in this order; errors as `to_connect`.

    A host is listened to at the interface that its number names, and at all of them if it is
    a name: a machine may know its own name as one of loopback.
    """
    if unix_path(address) is not None:
        return [to_connect(address)]
    host, port = host_and_port(address)
    everywhere = f"tcp://*:{port}"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return [everywhere]
    # The number may be that of a gateway which passes calls on.
    return [to_connect(address), everywhere]


def _checked(path: str) -> str:
    if not path.startswith("/") or len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(f"unix socket {path!r}: must be an absolute path of at most {LONGEST_PATH} bytes")
    return path
