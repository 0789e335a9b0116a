"""Takes Reverb's server off the network: it listens at a Unix socket instead of a port.

Reverb can be told a port and nothing else; it listens there on every interface, and serves
whoever comes. Its gRPC reads Unix sockets as well as any other, but no argument and no
variable reaches that. So once the server has started, in the same process:

1. its listening socket is found among the process's open files, and beside it the epoll
   instance in which gRPC waits for connections, with the note that gRPC made there;
2. a Unix socket is put in its place under the same number (`dup2`), which closes the port;
3. the same note is made for it in the epoll instance, as closing removed the old one.

gRPC then accepts from the Unix socket, and nothing is copied in between. What this takes for
granted of gRPC (one listening socket, watched by epoll) holds for the two versions of Reverb
that we serve with, for which there will be no other wheels; it is checked at every start, and
a server that does not fit does not serve. Runs in the replay server's Python, imports nothing
of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_BACKLOG = 512
_EPOLL_CTL_ADD = 1
_INTERNET = (socket.AF_INET, socket.AF_INET6)
# A line of /proc/self/fdinfo of an epoll instance; all but the first number are hexadecimal.
_WATCHED = re.compile(r"^tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)", re.MULTILINE)
_LONGEST = 107  # Bytes of sockaddr_un's path, less its end.


class ListenerError(RuntimeError):
    """The server could not be taken off the network."""


class _Event(ctypes.Structure):
    _pack_ = 1  # As on x86-64: Reverb has wheels for nothing else.
    _layout_ = "ms"  # What packing means; Python 3.14 wants it said.
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


def move(path: Path) -> None:
    """Has the gRPC server of this process listen at a Unix socket, and at no port any more.

    Call it when the server, started at port 0, has begun to listen: until then, for some
    milliseconds, it has a port that the kernel chose. The socket may be used by this user
    alone. Whoever connected to the port meanwhile makes the call fail.

    Args:
        path: of the socket; what an earlier server left there is replaced.

    Raises:
        ListenerError: if there is no such server here, it is not as expected, or the path
            is too long. Do not go on to serve then.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise ListenerError(f"{path}: a Unix socket's path has at most {_LONGEST} bytes")
    listening = [number for number, listens in _internet_sockets() if listens]
    if not listening:
        raise ListenerError("no socket of this process listens at a port")
    notes = {number: list(_notes(number)) for number in listening}
    if not all(notes.values()):
        raise ListenerError(f"of the listening sockets {listening} epoll watches only some: {notes}")
    with _made(path) as replacement:
        for number in listening:
            os.dup2(replacement.fileno(), number, inheritable=False)
            for epoll, event in notes[number]:
                _watch(epoll, number, event)
    left = list(_internet_sockets())
    if left:
        raise ListenerError(f"this process still has sockets of the network: {left}")


def is_possible() -> bool:
    """Whether this kernel tells what epoll watches: Linux does since 3.8, one that imitates it may not."""
    reading, writing = os.pipe()
    with open(reading), open(writing, "w"), select.epoll() as epoll:
        epoll.register(reading)
        return any(_notes(reading))


def _internet_sockets() -> Iterator[tuple[int, bool]]:
    """Number of each TCP socket that is open here, and whether it listens."""
    for number in _open_files():
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as found:
                if found.family in _INTERNET and found.type == socket.SOCK_STREAM:
                    yield number, bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        except OSError:  # Closed meanwhile by another thread.
            continue


def _notes(watched: int) -> Iterator[tuple[int, _Event]]:
    """Each epoll instance that watches a file, and its note."""
    for number in _open_files():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") != "anon_inode:[eventpoll]":
                continue
            for file, events, data in _WATCHED.findall(Path(f"/proc/self/fdinfo/{number}").read_text()):
                if int(file) == watched:
                    yield number, _Event(int(events, 16), int(data, 16))


def _open_files() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _made(path: Path) -> socket.socket:
    """A socket that listens at the path, for this user alone."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(made.fileno(), 0o600)  # Before it has a name: there is no moment without.
        made.bind(os.fspath(path))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise ListenerError(f"{path}: {error.strerror}") from error
    return made


def _watch(epoll: int, number: int, event: _Event) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.epoll_ctl(epoll, _EPOLL_CTL_ADD, number, ctypes.byref(event)) != 0:
        code = ctypes.get_errno()
        raise ListenerError(f"epoll_ctl: {os.strerror(code)}")
