# ruff: noqa
# mypy: ignore-errors
"""A Reverb client for tables of one packed uint8 column, without Reverb and TensorFlow.

Prototype. Speaks the protocol of dm-reverb 0.7.2 to 0.14.0 over grpcio. Two encoders of an
insertion: `encode_protobuf` builds messages, `Encoder` fills a numpy template, in which all
that is variable has a fixed width (varints of 10 bytes: keys have their top bit set).
"""

import collections
import queue
import threading
from collections.abc import Sequence

import grpc
import numpy as np

from classact.replay import replay_wire_pb2 as pb

_SERVICE = "/deepmind.reverb.ReverbService/"
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Reverb's own client has 30 s; a restarted server is found sooner so.
    ("grpc.max_reconnect_backoff_ms", 2000),
    # One connection per client object, as the streams of several would share flow control.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
_UINT8 = 4
_TOP = np.uint64(1 << 63)


def channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, options=_OPTIONS)


class Client:
    """The calls that are no streams."""

    def __init__(self, address: str) -> None:
        self._channel = channel(address)

    def _call(self, name, request, response, timeout):
        call = self._channel.unary_unary(
            _SERVICE + name,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request, timeout=timeout)

    def server_info(self, timeout=10.0):
        found = self._call("ServerInfo", pb.Empty(), pb.InfoResponse, timeout)
        return {table.name: table for table in found.tables}

    def checkpoint(self, timeout=120.0) -> str:
        return self._call("Checkpoint", pb.Empty(), pb.CheckpointResponse, timeout).path

    def mutate_priorities(self, table, updates=None, deletes=(), timeout=10.0):
        request = pb.MutateRequest(table=table, delete_keys=deletes)
        for key, priority in (updates or {}).items():
            request.updates.add(key=key, priority=priority)
        self._call("MutatePriorities", request, pb.Empty, timeout)

    def reset(self, table, timeout=10.0):
        self._call("Reset", pb.ResetRequest(table=table), pb.Empty, timeout)

    def close(self):
        self._channel.close()


def stored(row: np.ndarray) -> bytes:
    """A record as a snappy stream of one literal: no compression, no dependency."""
    size = len(row)
    return _varint(size) + b"\xfc" + (size - 1).to_bytes(4, "little") + row.tobytes()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_protobuf(rows, priorities, tables, chunk_keys, item_keys, episode, compress) -> bytes:
    """An InsertStreamRequest through protobuf messages; items of row i are `item_keys[:, i]`."""
    request = pb.InsertRequest()
    size = rows.shape[1]
    for index, row in enumerate(rows):
        chunk = request.chunks.add(key=int(chunk_keys[index]), tensors_len=1)
        chunk.range.episode_id = episode
        tensor = chunk.data.tensors.add(dtype=_UINT8, content=compress(row))
        tensor.shape.dim.add(size=1)
        tensor.shape.dim.add(size=size)
        for number, table in enumerate(tables):
            item = request.items.add(
                key=int(item_keys[number, index]), table=table, priority=float(priorities[number, index])
            )
            column = item.trajectory.columns.add(squeeze=True)
            column.slices.add(chunk_key=chunk.key, length=1)
    return request.SerializeToString()


def _field(tag: int, payload: bytes) -> bytes:
    return bytes([tag]) + _varint(len(payload)) + payload


def _varints10(keys: np.ndarray) -> np.ndarray:
    """uint8[n, 10]: varints of keys with their top bit set."""
    shifts = np.arange(0, 70, 7, dtype=np.uint64)
    parts = (keys[:, None] >> np.minimum(shifts, np.uint64(63))) & np.uint64(0x7F)
    found = parts.astype(np.uint8)
    found[:, :9] |= 0x80
    found[:, 9] = 1
    return found


class Encoder:
    """Fills templates: a request is one array of fixed records, made without a loop over examples."""

    def __init__(self, record_bytes: int, tables: Sequence[str], episode: int) -> None:
        marks = {"chunk_key": b"\xc1" * 9 + b"\x01", "item_key": b"\xc2" * 9 + b"\x01"}
        content = _varint(record_bytes) + b"\xfc" + (record_bytes - 1).to_bytes(4, "little")
        shape = _field(0x12, b"\x08\x01") + _field(0x12, b"\x08" + _varint(record_bytes))
        # All before the record's bytes; the lengths count these.
        tensor_head = (
            b"\x08\x04" + _field(0x12, shape) + b"\x22" + _varint(len(content) + record_bytes) + content
        )
        tensor_size = len(tensor_head) + record_bytes
        data_head = b"\x0a" + _varint(tensor_size) + tensor_head
        data_size = len(data_head) + record_bytes
        range_ = _field(0x12, b"\x08" + _varint(episode))
        chunk_head = (
            b"\x08" + marks["chunk_key"] + range_ + b"\x30\x01" + b"\x2a" + _varint(data_size) + data_head
        )
        head = b"\x0a" + _varint(len(chunk_head) + record_bytes) + chunk_head
        self._chunk_type = np.dtype([("head", np.uint8, len(head)), ("record", np.uint8, record_bytes)])
        self._chunk_head = np.frombuffer(head, np.uint8)
        self._chunk_key_at = head.index(marks["chunk_key"])
        self._items = []
        for table in tables:
            slice_ = b"\x08" + marks["chunk_key"] + b"\x18\x01"
            trajectory = _field(0x0A, _field(0x0A, slice_) + b"\x10\x01")
            body = b"\x08" + marks["item_key"] + _field(0x12, table.encode()) + b"\x29" + b"PRIORITY"
            item = _field(0x12, body + _field(0x42, trajectory))
            at = tuple(item.index(mark) for mark in (marks["item_key"], marks["chunk_key"], b"PRIORITY"))
            self._items.append((np.frombuffer(item, np.uint8), at))

    def __call__(self, rows, priorities, chunk_keys, item_keys) -> bytes:
        count = len(rows)
        chunk_varints = _varints10(chunk_keys)
        items_size = sum(len(item) for item, _ in self._items) * count
        chunks_size = self._chunk_type.itemsize * count
        buffer = np.empty(chunks_size + items_size, np.uint8)
        chunks = buffer[:chunks_size].view(self._chunk_type)
        chunks["head"] = self._chunk_head
        chunks["head"][:, self._chunk_key_at : self._chunk_key_at + 10] = chunk_varints
        chunks["record"] = rows
        start = chunks_size
        for number, (item, (key_at, chunk_at, priority_at)) in enumerate(self._items):
            block = buffer[start : start + count * len(item)].reshape(count, len(item))
            start += count * len(item)
            block[:] = item
            block[:, key_at : key_at + 10] = _varints10(item_keys[number])
            block[:, chunk_at : chunk_at + 10] = chunk_varints
            block[:, priority_at : priority_at + 8] = (
                np.ascontiguousarray(priorities[number], "<f8").view(np.uint8).reshape(count, 8)
            )
        return buffer.tobytes()


class Writer:
    """Inserts rows; at most `max_pending` items are unconfirmed when `write` returns."""

    def __init__(self, address, tables, record_bytes, max_pending=24, per_message=None, mode="template"):
        self._address, self._tables, self._mode = address, tuple(tables), mode
        self._max_pending = max_pending
        self._per_message = per_message or max(1, max_pending // len(self._tables))
        self._rng = np.random.default_rng()
        episode = int(self._rng.integers(0, 1 << 63, dtype=np.uint64) | _TOP)
        self._episode = episode
        self._encoder = Encoder(record_bytes, self._tables, episode)
        self._changed = threading.Condition()
        # Item keys of the requests that are not confirmed; what is sent again has the same keys.
        self._pending: dict[int, set[int]] = {}
        self._requests: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._of_item: dict[int, int] = {}
        self._next = 0
        self._error = None
        self._open()

    def _open(self):
        self._channel = channel(self._address)
        call = self._channel.stream_stream(
            _SERVICE + "InsertStream",
            request_serializer=None,
            response_deserializer=pb.InsertResponse.FromString,
        )
        self._queue = queue.SimpleQueue()
        self._call = call(iter(self._queue.get, None))
        self._thread = threading.Thread(target=self._confirm, args=(self._call,), daemon=True)
        self._thread.start()

    def _confirm(self, call):
        try:
            for response in call:
                with self._changed:
                    for key in response.keys:
                        self._of_item.pop(key, None)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def write(self, rows, priorities, timeout=30.0):
        """Inserts each row into each table; `priorities` is float64[tables, rows]."""
        if not np.all(np.isfinite(priorities)):
            raise ValueError("a priority would stop the table for ever")
        for start in range(0, len(rows), self._per_message):
            some = rows[start : start + self._per_message]
            count = len(some)
            keys = self._rng.integers(0, 1 << 63, (1 + len(self._tables), count), np.uint64) | _TOP
            wanted = priorities[:, start : start + count]
            if self._mode == "template":
                request = self._encoder(some, wanted, keys[0], keys[1:])
            else:
                request = encode_protobuf(
                    some,
                    wanted,
                    self._tables,
                    keys[0],
                    keys[1:],
                    self._episode,
                    stored,
                )
            items = keys[1:].ravel().tolist()
            with self._changed:
                self._of_item.update(dict.fromkeys(items, 0))
            self._queue.put(request)
            self.flush(self._max_pending, timeout)

    def flush(self, max_pending=0, timeout=30.0):
        with self._changed:
            if not self._changed.wait_for(lambda: self._error or len(self._of_item) <= max_pending, timeout):
                raise TimeoutError(f"{len(self._of_item)} items are not confirmed")
            if self._error:
                raise self._error

    def close(self):
        self._queue.put(None)
        self._thread.join(5.0)
        self._channel.close()


class Sampler:
    """Batches of rows uint8[batch, record_bytes] of a table; blocks for at most `timeout_ms` for an item."""

    def __init__(self, address, table, record_bytes, batch_size, in_flight, timeout_ms=2000, ahead=1):
        self._channel = channel(address)
        self._table, self._size, self._batch = table, record_bytes, batch_size
        stream = self._channel.stream_stream(
            _SERVICE + "SampleStream",
            request_serializer=None,
            response_deserializer=pb.SampleResponse.FromString,
        )
        self._request = pb.SampleRequest(
            table=table, num_samples=in_flight, rate_limiter_timeout=pb.Timeout(milliseconds=timeout_ms)
        ).SerializeToString()
        self._in_flight = in_flight
        self._queue = queue.SimpleQueue()
        self._call = stream(iter(self._queue.get, None))
        self._outstanding = 0
        self._low = in_flight * (ahead - 1)
        for _ in range(ahead):
            self._ask()

    def _ask(self):
        self._outstanding += self._in_flight
        self._queue.put(self._request)

    def batches(self):
        out, filled = np.empty((self._batch, self._size), np.uint8), 0
        priorities = np.empty(self._batch)
        try:
            for response in self._call:
                for entry in response.entries:
                    self._decode(entry.data[0].data.tensors[0].content, out[filled])
                    priorities[filled] = entry.info.item.priority
                    filled += 1
                    self._outstanding -= 1
                    if self._outstanding <= self._low:
                        self._ask()
                    if filled == self._batch:
                        yield out, priorities
                        out, filled = np.empty((self._batch, self._size), np.uint8), 0
                        priorities = np.empty(self._batch)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                raise RuntimeError(str(error)) from None
        if filled:
            yield out[:filled], priorities[:filled]

    def _decode(self, content, row):
        # A chunk of one step: delta encoding, if there is any, changes nothing.
        if len(content) == self._size + len(_varint(self._size)) + 5:
            at = len(content) - self._size
            row[:] = np.frombuffer(content, np.uint8, self._size, at)
        else:
            raise ValueError("a record that is compressed")

    def close(self):
        self._call.cancel()
        self._channel.close()
