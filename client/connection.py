"""A trainer's connection to its selector, which may die and come back meanwhile."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import stat
import time
import warnings
from collections.abc import Mapping
from typing import Any

import zmq

from classact.client import protocol

FILE_NAME = "serve.json"
"""What a selector writes into the run directory: where it is, and the keys that it takes."""

# After so long without an answer everything that was asked is asked again, maybe elsewhere.
_ASK_AGAIN_SECONDS = 3.0
# Between two looks for the file of a run that is being started.
_LOOK_SECONDS = 0.5
# When it is told that it is waited for.
_SAY_SECONDS = 15.0
# A host that is gone says nothing: after so many seconds of silence the connection is taken down.
_LOST_AFTER_SECONDS = 5


class SelectionError(RuntimeError):
    """The selector cannot be had, or refuses; one line says why."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a selector is.

    Attributes:
        address: of ZeroMQ, `tcp://host:port` or `ipc:///path`.
        server: its public key; empty without keys.
        caller: public key of those who may call it.
        caller_secret: its secret.
        ended: of a run that is completed, and has no address any more, how many sub-batches there were;
            -1 of any other.
    """

    address: str
    server: str = ""
    caller: str = ""
    caller_secret: str = dataclasses.field(default="", repr=False)
    ended: int = -1


def read_place(path: pathlib.Path) -> Place:
    """Reads what a selector wrote.

    Raises:
        FileNotFoundError: if it is not there.
        SelectionError: if it cannot be read, or others could have written it.
    """
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SelectionError(f"{path} is open to others: chmod 600")
            found = json.load(file)
        if found["version"] != protocol.VERSION:
            raise SelectionError(f"{path} is of version {found['version']}, this is {protocol.VERSION}")
        texts = {name: str(found[name]) for name in ("address", "server", "caller", "caller_secret")}
        return Place(**texts, ended=int(found["ended"]))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SelectionError(f"{path} says no place of a selector: {error}") from None


class Finder:
    """Knows where to look for a selector; it may be another place after each of its restarts."""

    def __init__(self, where: str, keys: str | None, patience: float) -> None:
        """Looks for nothing yet; see `selection.connect`."""
        self._where, self._keys, self._patience = where, keys, patience

    @property
    def name(self) -> str:
        """What the user has called it."""
        return self._where

    def wait(self) -> Place:
        """The place; blocks until there is one, `patience` seconds at most.

        Raises:
            SelectionError: if there is none by then.
        """
        started, told = time.monotonic(), False
        while True:
            try:
                return self.now()
            except FileNotFoundError as error:
                said = f"{error.filename} is not there: is `classact serve --workdir={self._where}` running?"
                waited = time.monotonic() - started
                if waited > self._patience:
                    raise SelectionError(said) from None
                if waited > _SAY_SECONDS and not told:
                    warnings.warn(f"{said} It is waited for, {self._patience:.0f} s at most", stacklevel=4)
                    told = True
                # A file that another process writes, maybe on another host: nothing tells when it comes.
                time.sleep(min(_LOOK_SECONDS, self._patience))

    def now(self) -> Place:
        """The place as it is told now; FileNotFoundError and SelectionError as `read_place`."""
        if not self._where.startswith(("tcp://", "ipc://")):
            return read_place(pathlib.Path(self._where) / FILE_NAME)
        if self._keys is None:
            return Place(self._where)
        return dataclasses.replace(read_place(pathlib.Path(self._keys)), address=self._where)


class Connection:
    """Asks a selector; of one thread, and of the process that made it.

    What was asked and not answered is asked again after a few seconds of silence, at the place that
    is told then: so a selector that is started again is found, at another port too.
    """

    def __init__(self, finder: Finder, patience: float) -> None:
        """Connects; blocks until it is known where, see `Finder.wait`.

        Args:
            finder: says where.
            patience: seconds to wait for an answer at most.
        """
        self._finder, self._patience = finder, patience
        self._context: Any = zmq.Context()
        self._place = finder.wait()
        self._socket: Any = self._connected(self._place)
        self._last_id = 0
        self._asked: dict[int, list[protocol.Frame]] = {}
        self._arrived: dict[int, tuple[dict[str, Any], dict[str, protocol.Values]]] = {}

    def tell(self, header: Mapping[str, Any]) -> None:
        """Sends what has no answer, if it can be sent now; it may be lost."""
        try:
            self._send(protocol.pack({**header, "id": 0}))
        except zmq.Again:
            return

    def ask(self, header: Mapping[str, Any], arrays: Mapping[str, protocol.Values] | None = None) -> int:
        """Sends a request, and waits for nothing; returns the number to `receive` its answer with."""
        self._last_id += 1
        frames = self._asked[self._last_id] = protocol.pack({**header, "id": self._last_id}, arrays)
        try:
            self._send(frames)
        except zmq.Again:
            # Nobody listens now: it is asked again.
            return self._last_id
        return self._last_id

    def receive(self, number: int) -> tuple[dict[str, Any], dict[str, protocol.Values]]:
        """The header and the arrays of an answer; blocks for `patience` seconds at most.

        Of a run that is completed meanwhile the answer is of the kind `ended`, with `number`, how many
        sub-batches there were.

        Raises:
            SelectionError: if none came, or the selector refuses.
        """
        deadline = time.monotonic() + self._patience
        heard = time.monotonic()
        while number not in self._arrived:
            now = time.monotonic()
            if now > deadline:
                raise SelectionError(
                    f"the selector of {self._finder.name} gave nothing for {self._patience:.0f} s: look "
                    "at it with `classact status`; connect(patience=…) waits longer"
                )
            if now - heard > _ASK_AGAIN_SECONDS or self._place.ended >= 0:
                self._ask_again()
                heard = now
            wait = min(_ASK_AGAIN_SECONDS, max(0.0, deadline - now))
            if number not in self._arrived and self._socket.poll(1 + int(1000 * wait)):
                self._take()
                heard = time.monotonic()
        header, arrays = self._arrived.pop(number)
        if header["kind"] == "error":
            raise SelectionError(str(header.get("message")))
        return header, arrays

    def close(self) -> None:
        """Closes it; what is under way is forgotten."""
        self._socket.close(linger=0)
        self._context.term()

    def _take(self) -> None:
        frames = [frame.buffer for frame in self._socket.recv_multipart(copy=False)]
        try:
            header, arrays = protocol.unpack(frames)
        except protocol.ProtocolError as error:
            raise SelectionError(f"the selector of {self._finder.name}: {error}") from None
        # Of what was asked twice the second answer is dropped.
        if self._asked.pop(header.get("id", 0), None) is not None:
            self._arrived[header["id"]] = header, arrays

    def _ask_again(self) -> None:
        try:
            place = self._finder.now()
        # Between two lives of it; or the file is being looked at by somebody who changed its mode.
        except (FileNotFoundError, SelectionError):
            return
        if place.ended >= 0:
            self._place = place
            said = {"kind": "ended", "number": place.ended}
            self._arrived |= {number: (said, {}) for number in self._asked}
            self._asked.clear()
            return
        if place != self._place:
            self._socket.close(linger=0)
            self._place, self._socket = place, self._connected(place)
        for frames in self._asked.values():
            try:
                self._send(frames)
            except zmq.Again:
                return

    def _send(self, frames: list[protocol.Frame]) -> None:
        self._socket.send_multipart(frames, zmq.NOBLOCK)

    def _connected(self, place: Place) -> Any:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvhwm = socket.sndhwm = 0
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 500
        socket.ipv6 = True
        socket.tcp_keepalive = socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = 1
        socket.tcp_keepalive_cnt = _LOST_AFTER_SECONDS - 1
        if place.server:
            socket.curve_serverkey = place.server.encode()
            socket.curve_publickey = place.caller.encode()
            socket.curve_secretkey = place.caller_secret.encode()
        try:
            if place.address:
                socket.connect(place.address)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise SelectionError(f"{place.address} is no address: {error}") from None
        return socket
