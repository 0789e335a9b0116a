"""Gives sub-batches to trainers: a thread with a ROUTER socket. What is said is in `client/protocol.py`."""

import contextlib
import errno
import json
import logging
import os
import pathlib
import select
import socket
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import zmq

from classact.calls import addresses
from classact.calls import keys as keys_lib
from classact.calls import protocol as calls_protocol
from classact.calls.gate import Gate
from classact.client import protocol
from classact.client.connection import FILE_NAME
from classact.data.carried.kinds import IDS
from classact.nodes.serving import shelf as shelf_lib

# Requests that wait for their sub-batch; more are refused.
_MOST_WAITING = 4096
# Of a request: what a report of a whole sub-batch's losses takes, and more.
_MOST_REQUEST_BYTES = 2**26
_LINGER_SECONDS = 1.0
_AFTER_ERROR_SECONDS = 0.1
_IMAGE_FIELDS = ("image", "encoded")


class _Waiting(NamedTuple):
    header: Mapping[str, Any]
    consumer: shelf_lib.Consumer
    number: int


class Reports:
    """What trainers have reported of their losses since the last line of metrics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._examples = 0
        self._losses: list[np.ndarray] = []

    def add(self, losses: np.ndarray) -> None:
        """Takes losses float32[n]."""
        with self._lock:
            self._examples += len(losses)
            self._losses.append(losses)

    def counts(self) -> dict[str, float]:
        """Metrics: how many in all, and the mean of those since the last time, if there were any."""
        with self._lock:
            losses, self._losses = self._losses, []
            examples = self._examples
        found = {"serve/reported": float(examples)} if examples else {}
        finite = [part[np.isfinite(part)] for part in losses]
        whole = np.concatenate(finite) if finite else np.empty(0, np.float32)
        return {**found, "serve/trainer_loss": float(whole.mean())} if len(whole) else found


class Server:
    """Answers trainers from `start` to `stop`."""

    def __init__(
        self,
        shelf: shelf_lib.Shelf,
        listen: str,
        workdir: pathlib.Path,
        about: Mapping[str, Any],
        reports: Reports,
    ) -> None:
        """Listens to nothing yet.

        Args:
            shelf: what there is to give; its `changed` becomes the server's.
            listen: "host:port", with port 0 for any, or "unix:/path".
            workdir: the run directory, for `serve.json`; its keys are those of an earlier process.
            about: what a trainer is told of the run: `data_sets`, `images`, `task`.
            reports: takes what trainers report.

        Raises:
            ValueError: for a bad address.
        """
        self._shelf, self._listen, self._workdir = shelf, listen, workdir
        self._about, self._reports = dict(about), reports
        self._endpoints = addresses.to_bind(listen)
        self._over_tcp = addresses.unix_path(listen) is None
        self._stopping = threading.Event()
        self._waiting: dict[tuple[bytes, int], _Waiting] = {}
        self._wake = -1
        self._gate: Gate | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listens and answers from now on, and writes `serve.json`.

        Raises:
            OSError: if the address cannot be had, or the file cannot be written.
            ValueError: if the keys of an earlier process are open to others.
        """
        keys = _keys(self._workdir) if self._over_tcp else None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            self._socket.linger = int(1000 * _LINGER_SECONDS)
            self._socket.router_mandatory = True
            self._socket.sndhwm = self._socket.rcvhwm = 64
            self._socket.maxmsgsize = _MOST_REQUEST_BYTES
            self._socket.ipv6 = self._over_tcp
            if keys is not None:
                calls_protocol.notice_lost_hosts(self._socket)
                self._gate = Gate(self._context, self._socket, keys, self._listen)
            self._bind()
            _write_place(self._workdir, self._told(), keys)
        # It is raised again; a context that stays would hold the process at its end.
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._shelf.changed = self._look_again
        self._thread = threading.Thread(target=self._serve, name="selection", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it, within some seconds; safe to call twice, and before `start`."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._look_again()
            thread.join(3 * _LINGER_SECONDS)

    def say_ended(self, number: int) -> None:
        """Writes for all who come later that the sub-batches end before a number."""
        _write_place(self._workdir, "", None, number)

    def _bind(self) -> None:
        path = addresses.unix_path(self._listen)
        if path is not None and addresses.answers(self._listen):
            raise OSError(f"something already listens at {self._listen}")
        failure = OSError(errno.EADDRNOTAVAIL, "nowhere to listen")
        for endpoint in self._endpoints:
            try:
                self._socket.bind(endpoint)
            except zmq.ZMQError as error:
                failure = OSError(error.errno, f"serve.listen: cannot listen at {endpoint}: {error.strerror}")
                continue
            if path is not None:
                os.chmod(path, 0o600)
            return
        raise failure

    def _told(self) -> str:
        """The address that trainers are told."""
        bound = str(self._socket.get_string(zmq.LAST_ENDPOINT))
        if not self._over_tcp:
            return bound
        host, _ = addresses.host_and_port(self._listen)
        anywhere = bound.startswith(("tcp://0.0.0.0:", "tcp://[::]:"))
        named = host if host not in ("0.0.0.0", "::") else socket.gethostname()
        return f"tcp://{named}:{bound.rpartition(':')[2]}" if anywhere else bound

    def _look_again(self) -> None:
        if self._wake >= 0:
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                os.eventfd_write(self._wake, 1)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for own in (self._socket, *(self._gate.sockets if self._gate is not None else ())):
            poll.register(own.fileno(), select.POLLIN)
        while not self._stopping.is_set():
            try:
                while calls_protocol.has_come(self._socket):
                    self._receive()
                self._give()
                if self._gate is not None:
                    self._gate.attend()
                # What came while it answered rings no bell.
                if calls_protocol.has_come(self._socket):
                    continue
                if self._wake in dict(poll.poll()):
                    os.eventfd_read(self._wake)
            # Whatever somebody sent, the others are answered.
            except Exception:
                logging.exception("serving sub-batches: an error in what gives them")
                self._stopping.wait(_AFTER_ERROR_SECONDS)
        self._close()

    def _close(self) -> None:
        wake, self._wake = self._wake, -1
        os.close(wake)
        if self._gate is not None:
            self._gate.close()
        self._socket.close()
        path = addresses.unix_path(self._listen)
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._context.term()

    def _receive(self) -> None:
        caller, *frames = self._socket.recv_multipart()
        try:
            header, arrays = protocol.unpack(frames)
            self._take(caller, header, arrays)
        except (protocol.ProtocolError, KeyError, TypeError, ValueError) as error:
            said = f"a request that is none: {error}"
            self._send(caller, {"kind": "error", "id": _id_of(frames), "message": said})

    def _take(self, caller: bytes, header: dict[str, Any], arrays: Mapping[str, protocol.Values]) -> None:
        kind, number = header["kind"], int(header["id"])
        consumer = shelf_lib.Consumer(*(int(header[name]) for name in shelf_lib.Consumer._fields))
        if not (0 <= consumer.rank < consumer.world and 0 <= consumer.worker < consumer.workers):
            raise ValueError(f"rank, world, worker and workers are {tuple(consumer)}")
        if kind == "hello":
            wanted = None if header["next"] is None else int(header["next"])
            found = self._shelf.begin(consumer, wanted, str(header.get("session", "")))
            self._send(caller, {**self._about, "kind": "hello", "id": number, "next": found})
        elif kind == "get":
            if len(self._waiting) >= _MOST_WAITING:
                raise ValueError(f"{_MOST_WAITING} requests wait already, the limit")
            self._waiting[caller, number] = _Waiting(header, consumer, int(header["number"]))
        elif kind == "confirm":
            self._shelf.confirm(consumer.rank, int(header["number"]))
        elif kind == "report":
            ids, losses = np.asarray(arrays["ids"]), np.asarray(arrays["losses"], np.float32)
            if ids.shape != losses.shape or losses.ndim != 1:
                raise ValueError("ids and losses are not as many numbers")
            self._reports.add(losses)
            self._send(caller, {"kind": "done", "id": number})
        else:
            raise ValueError(f"kind {kind!r}")

    def _give(self) -> None:
        """Answers all that can be answered now, in the order in which it was asked."""
        for key, waiting in list(self._waiting.items()):
            sub_batch = self._shelf.get(waiting.number)
            head: dict[str, Any] = {"id": key[1], "number": waiting.number}
            given = True
            if sub_batch is not None:
                head["kind"] = "batch"
                least = min(len(values) for values in sub_batch.values())
                if least < waiting.consumer.world:
                    head |= {"kind": "error", "message": _too_many(waiting.consumer.world, least)}
                    sub_batch, given = None, False
            elif self._shelf.has_ended_before(waiting.number):
                head["kind"] = "end"
            elif waiting.number < (oldest := self._shelf.oldest()):
                head |= {"kind": "gone", "oldest": oldest}
                given = False
            else:
                continue
            del self._waiting[key]
            arrays = _asked_for(sub_batch, waiting) if sub_batch is not None else {}
            if self._send(key[0], head, arrays) and given:
                self._shelf.given(waiting.consumer, waiting.number)

    def _send(
        self, caller: bytes, header: Mapping[str, Any], arrays: Mapping[str, protocol.Values] | None = None
    ) -> bool:
        """Sends an answer; False if its trainer has gone, or does not read: it asks again."""
        try:
            self._socket.send_multipart([caller, *protocol.pack(header, arrays)], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            logging.debug("an answer was not sent: %s", error)
            return False
        return True


def _asked_for(sub_batch: shelf_lib.SubBatch, waiting: _Waiting) -> shelf_lib.SubBatch:
    """This rank's rows, of the fields that it wants."""
    left_out = set() if waiting.header.get("weights") else {"weight"}
    if waiting.header.get("images") == IDS:
        left_out |= {*_IMAGE_FIELDS}
    chosen = {name: values for name, values in sub_batch.items() if name.rpartition("/")[2] not in left_out}
    return shelf_lib.rows(chosen, waiting.consumer.rank, waiting.consumer.world)


def _too_many(world: int, least: int) -> str:
    return f"world_size={world}: must be at most batch_size={least}, the examples of a sub-batch"


def _id_of(frames: list[bytes]) -> int:
    """The number of a request that is wrong otherwise; 0 if it has none."""
    try:
        return int(json.loads(frames[0])["id"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return 0


def _keys(workdir: pathlib.Path) -> keys_lib.Keys:
    """Those of the run's earlier selectors: a trainer elsewhere has a copy of them."""
    path = workdir / "serve" / keys_lib.FILE_NAME
    try:
        return keys_lib.Keys.load(path)
    except FileNotFoundError:
        made = keys_lib.Keys.make()
        made.save(path)
        return made


def _write_place(workdir: pathlib.Path, address: str, keys: keys_lib.Keys | None, ended: int = -1) -> None:
    """Tells trainers where it is, in a file for this user alone."""
    place = {
        "version": protocol.VERSION,
        "address": address,
        "server": keys.server if keys is not None else "",
        "caller": keys.caller if keys is not None else "",
        "caller_secret": keys.caller_secret if keys is not None else "",
        "ended": ended,
    }
    path = workdir / FILE_NAME
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(place, file)
    os.replace(temporary, path)
