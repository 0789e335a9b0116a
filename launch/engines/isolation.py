"""`--isolate`: a run in a network of its own, whose only interface is loopback.

Courier's and Reverb's servers listen on every interface, whoever asks, and cannot be
told otherwise. In a network namespace that holds nothing but loopback nobody outside
reaches them, not even another user of the machine.

    python -I -S isolation.py COMMAND …

makes the namespace and becomes the command: process id, process group, terminal and
ignored signals stay what they are, and the namespace ends with the last process in it.
A program of its own, because the kernel gives a namespace of users only to a process
that has no other thread. It imports nothing of classact.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

_NEW_USERS = 0x10000000  # CLONE_NEWUSER
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_INTERFACE = struct.Struct("16sH22x")  # struct ifreq, with flags.
# Says inside which network this is, so that the command is not started over and over.
_VARIABLE = "CLASSACT_NETWORK"


def is_inside() -> bool:
    """Whether this process, or one that started it, was given a network of its own."""
    return os.environ.get(_VARIABLE) == _namespace("net")


def start_over() -> NoReturn:
    """Starts this program again, with the same arguments and process id, in a network of its own.

    Never returns: where that cannot be done, the process ends with status 2 and one line
    that says why.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    again = [sys.executable, *sys.orig_argv[1:]]
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, *again])


def described() -> dict[str, Any] | None:
    """What a run says of the network that it was given; None if it was given none.

    Returns:
      The namespaces of its network and its users, as /proc names them, and the process
      id of the launcher, through which they are entered.
    """
    if not is_inside():
        return None
    return {"network": _namespace("net"), "users": _namespace("user"), "pid": os.getpid()}


def way_in(isolated: Mapping[str, Any]) -> str:
    """The command under which others run inside; "" if this process is inside.

    Args:
      isolated: of `described`, of a run on this machine.
    """
    if isolated["network"] == _namespace("net"):
        return ""
    # The kernel does not let a process enter the users that it belongs to.
    users = "" if isolated["users"] == _namespace("user") else " --user --preserve-credentials"
    return f"nsenter --target {int(isolated['pid'])} --net{users}"


def name_is_loopback() -> bool:
    """Whether this machine's own name is an address of loopback.

    At the address of that name Gloo listens, through which JAX's processes exchange
    arrays between CPUs; where there is no such address, they do not start.
    """
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def _namespace(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


def main(command: list[str]) -> None:
    """Gives this process a network of its own, and replaces it by the command.

    Args:
      command: path of a program, and its arguments.

    Raises:
      SystemExit: with status 2, if there can be no such network.
    """
    try:
        _make_network()
    except OSError as error:
        print(
            f"classact: --isolate: this user can have no network of their own here ({error.strerror}): "
            "see SECURITY.md for what it takes, or leave it out",
            file=sys.stderr,
        )
        sys.exit(2)
    os.environ[_VARIABLE] = _namespace("net")
    os.execv(command[0], command)


def _make_network() -> None:
    """Leaves the network for a new one in which loopback is up."""
    users, groups = os.geteuid(), os.getegid()
    try:
        # Who may do this needs no users of their own, among whom root could not read others' files.
        _unshare(_NEW_NETWORK)
    except PermissionError:
        _unshare(_NEW_USERS | _NEW_NETWORK)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{users} {users} 1")
        Path("/proc/self/gid_map").write_text(f"{groups} {groups} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo"
        _, flags = _INTERFACE.unpack(fcntl.ioctl(any_socket, _SIOCGIFFLAGS, _INTERFACE.pack(name, 0)))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _INTERFACE.pack(name, flags | _IFF_UP))


def _unshare(what: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(what) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
