"""Takes items of a table."""

from collections.abc import Iterator

import grpc
import grpc.experimental
import numpy as np

from classact.replay import channel as channels
from classact.replay import compression, protocol
from classact.replay.channel import Unanswered
from classact.replay.server_calls import ReplayError

# The thread that takes reads the connection itself: no other one has to wake it for each message.
_IN_THIS_THREAD = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)


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
        self._channel = channels.connect(address, [_IN_THIS_THREAD])
        self._call: grpc.Call | None = None
        self._closed = False

    def take(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Fills rows with items, in the order in which they are drawn.

        Blocks while the table's rate limiter does, and ends early after `limiter_seconds`
        without an item. What is asked for leaves the table as soon as the limiter allows,
        and what is under way when the stream breaks is lost.

        Args:
            rows: uint8[n, record bytes], filled from the first on.

        Yields:
            The priorities float64[k] of the next k items, as soon as their rows are filled.

        Raises:
            ReplayError: if the server does not answer, or after `close`.
            ResponseError: if it delivers something else.
        """
        request = protocol.SampleRequest(table=self._table, num_samples=len(rows))
        request.limiter_timeout.milliseconds = self._timeout_ms
        method = self._channel.unary_stream(
            protocol.SERVICE + "SampleStream",
            request_serializer=protocol.SampleRequest.SerializeToString,
            response_deserializer=protocol.SampleResponse.FromString,
        )
        filled = 0
        try:
            if self._closed:
                return
            self._call = responses = method(request)
            for response in responses:
                count = len(response.entries)
                yield self._read(response, rows[filled : filled + count])
                filled += count
        except Unanswered as error:
            # The limiter's time-out; what it had drawn before came before it.
            if getattr(error, "code", lambda: None)() == grpc.StatusCode.DEADLINE_EXCEEDED or self._closed:
                return
            said = channels.reason(error)
            raise ReplayError(f"the replay at {self._address} gives nothing: {said}") from error
        # The connection's own objects raise this when it was closed under them.
        except ValueError as error:
            if not self._closed:
                raise
            raise ReplayError("closed") from error

    def close(self) -> None:
        """Ends a `take` that is under way, in whatever thread, and closes the connection."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        self._channel.close()

    def _read(self, response: protocol.SampleResponse, rows: np.ndarray) -> np.ndarray:
        priorities = np.empty(len(response.entries))
        if len(rows) != len(priorities):
            raise ResponseError(f"table {self._table!r} at {self._address} gave more than it was asked for")
        for index, entry in enumerate(response.entries):
            # An item of many chunks may be spread over entries and responses; none of ours has them.
            if not entry.ends_item or len(entry.chunks) != 1 or len(entry.chunks[0].data.tensors) != 1:
                raise ResponseError(f"table {self._table!r} at {self._address} holds items of many parts")
            compression.read_into(entry.chunks[0].data.tensors[0].content, rows[index])
            priorities[index] = entry.info.item.priority
        return priorities
