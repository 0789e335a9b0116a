"""Takes items of a table."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from classact.replay import compression, protocol
from classact.replay.http2 import Connection, EndedError
from classact.replay.records import Places, Records
from classact.replay.server_calls import ReplayError
from classact.replay.varints import read_varint

_METHOD = protocol.SERVICE + "SampleStream"
# What gRPC puts before each message: whether it is compressed, and its size.
_MESSAGE_HEAD = struct.Struct(">?I")
# An entry's bytes before the record: 100, and the name of the table.
_HEAD_BYTES = 512
# Snappy's largest result: 32 bytes and a sixth more than what it is made of.
_SNAPPY_BYTES = 32
# Tags of the messages in `protocol`: the number of a field, and in the low bits of which kind it is.
_ENTRY, _INFO, _CHUNK = 0x0A, 0x0A, 0x12
_TENSORS, _TENSOR, _CONTENT = 0x2A, 0x0A, 0x22
_KIND, _NUMBER, _BYTES = 0x7, 0, 2
# `SampleEntry.ends_item`.
_ITEM_ENDS = b"\x18\x01"


class ResponseError(ValueError):
    """A server delivered what no table of ours holds."""


class SampleStream:
    """Takes items of one table. Each `take` is a stream of its own; nothing is asked for ahead."""

    def __init__(self, address: str, table: str, limiter_seconds: float) -> None:
        """Connects when it is used.

        Args:
            address: of the server.
            table: its name.
            limiter_seconds: how long the server may let `take` wait for an item.
        """
        self._address = address
        self._table = table
        self._timeout_ms = max(1, int(1000 * limiter_seconds))
        self._connection: Connection | None = None
        self._closed = False

    def take(self, rows: Records) -> Iterator[np.ndarray]:
        """Fills rows with items, in the order in which they are drawn.

        Blocks while the table's rate limiter does, and ends early after `limiter_seconds`
        without an item. What is asked for leaves the table as soon as the limiter allows,
        and what is under way when the stream breaks is lost. A server that neither delivers nor ends the
        stream, on this host, is waited for until `close`.

        Args:
            rows: filled from the first on.

        Yields:
            The priorities float64[k] of the next k items, as soon as their rows are filled.

        Raises:
            ReplayError: if the server does not answer, or after `close`.
            ResponseError: if it delivers something else.
            OSError, ValueError: over TCP, if the run's keys cannot be read.
        """
        request = protocol.SampleRequest(table=self._table, num_samples=len(rows))
        request.limiter_timeout.milliseconds = self._timeout_ms
        if self._closed:
            return
        whole = False
        try:
            connection = self._connected()
            connection.call(_METHOD, request.SerializeToString())
            yield from _responses(connection, rows, f"table {self._table!r} at {self._address}")
        except EndedError as ended:
            whole = True
            # The limiter's time-out; what it had drawn before came before it.
            if ended.status not in ("OK", "DEADLINE_EXCEEDED"):
                raise ReplayError(f"the replay at {self._address} gives nothing: {ended}") from ended
        except OSError as error:
            if not self._closed:
                raise ReplayError(f"the replay at {self._address} gives nothing: {error}") from error
        finally:
            if not whole:
                self._disconnect()

    def close(self) -> None:
        """Ends a `take` that is under way, in whatever thread, and closes the connection."""
        self._closed = True
        self._disconnect()

    def _connected(self) -> Connection:
        # `close` may take it away at any moment: then it is closed, and says so when it is used.
        connection = self._connection
        if connection is None or connection.is_used_up:
            self._disconnect()
            connection = self._connection = Connection(self._address)
            if self._closed:  # Meanwhile.
                self._disconnect()
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _responses(connection: Connection, rows: Records, name: str) -> Iterator[np.ndarray]:
    """Fills rows, and yields the priorities of each response; raises EndedError at the end.

    Of a response that breaks off it yields those whose rows are filled.
    """
    filled = 0
    while True:
        head = connection.peek(_MESSAGE_HEAD.size)
        compressed, left = _MESSAGE_HEAD.unpack(_whole(head, _MESSAGE_HEAD.size))
        connection.skip(_MESSAGE_HEAD.size)
        if compressed:
            raise ResponseError(f"{name} compresses its answers")
        priorities: list[float] = []
        try:
            while left:
                if filled == len(rows):
                    raise ResponseError(f"{name} gave more than it was asked for")
                size, priority = _read_entry(connection, rows.places(filled), left, name)
                left -= size
                filled += 1
                priorities.append(priority)
        except (OSError, EndedError):
            yield np.array(priorities)
            raise
        yield np.array(priorities)


def _whole(found: memoryview, size: int) -> bytes:
    if len(found) < size:
        raise ConnectionResetError("the call ended within a message")
    return bytes(found)


def _read_entry(connection: Connection, places: Places, left: int, name: str) -> tuple[int, float]:
    """Reads one item of a message with so many bytes left; returns how many it took, and its priority."""
    size = min(left, _HEAD_BYTES)
    entry = _entry(_whole(connection.peek(size), size))
    # An item of many chunks may be spread over entries and responses; none of ours has them.
    if entry is None or entry.end > left:
        raise ResponseError(f"{name} holds items of many parts")
    connection.skip(entry.start)
    _read_record(connection, places, entry.stop - entry.start)
    size = entry.end - entry.stop
    tail = _whole(connection.peek(size), size)
    connection.skip(size)
    if not tail.endswith(_ITEM_ENDS):
        raise ResponseError(f"{name} holds items of many parts")
    return entry.end, entry.priority


class _Entry(NamedTuple):
    """Where an item's record is in its message, where the item ends, and its priority."""

    start: int
    stop: int
    end: int
    priority: float


def _entry(head: bytes) -> _Entry | None:
    """Finds the record of an item; None if that is not one chunk of one tensor.

    Fields are in the order of their numbers, as each implementation of the format writes them.
    """
    try:
        at, end = _inside(head, 0, _ENTRY)
        info, info_end = _inside(head, at, _INFO)
        at, chunk_end = _inside(head, info_end, _CHUNK)
        at, tensors_end = _inside(head, at, _TENSORS)
        at, tensor_end = _inside(head, at, _TENSOR)
        start, stop = _inside(head, at, _CONTENT)
    except IndexError:
        return None
    if not stop == tensor_end == tensors_end or chunk_end + len(_ITEM_ENDS) != end:
        return None
    return _Entry(start, stop, end, protocol.SampleInfo.FromString(head[info:info_end]).item.priority)


def _inside(message: bytes, at: int, wanted: int) -> tuple[int, int]:
    """Where a field of a message begins and ends, behind other fields; raises IndexError if there is none."""
    while True:
        tag = message[at]
        value, at = read_varint(message, at + 1)
        if tag == wanted:
            return at, at + value
        if tag & _KIND == _BYTES:
            at += value
        elif tag & _KIND != _NUMBER:
            raise IndexError


def _read_record(connection: Connection, places: Places, size: int) -> None:
    """Reads a Snappy block of so many bytes; raises ValueError if it is no record of the right size."""
    record_bytes = sum(map(len, places))
    prefix = compression.stored_prefix(record_bytes)
    if size == len(prefix) + record_bytes and connection.peek(len(prefix)) == prefix:
        connection.skip(len(prefix))
        for place in places:
            connection.read_into(place)
        return
    if size > _SNAPPY_BYTES + record_bytes + record_bytes // 6:
        raise ValueError(f"a record of the replay does not have {record_bytes} bytes")
    block, row = bytearray(size), np.empty(record_bytes, np.uint8)
    connection.read_into(memoryview(block))
    compression.read_into(bytes(block), row)
    start = 0
    for place in places:
        place[:] = row.data[start : start + len(place)]
        start += len(place)
