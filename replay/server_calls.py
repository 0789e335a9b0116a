"""The calls of a replay server that are no streams: its state, its checkpoint, its priorities."""

from collections.abc import Collection, Mapping
from typing import Any

from classact.replay import channel as channels
from classact.replay import protocol
from classact.replay.channel import Unanswered


class ReplayError(RuntimeError):
    """A replay server did not answer, or refused."""


class SchemaError(ValueError):
    """The table does not exist, or holds records of another kind."""


class ServerCalls:
    """Asks one server; each call blocks for its time-out at most. May be used by several threads."""

    def __init__(self, address: str) -> None:
        """Connects at the first call to "host:port" or "unix:/path"."""
        self.address = address
        self._channel = channels.connect(address)

    def tables(self, timeout: float = 10.0) -> dict[str, Any]:
        """Returns the state of each table by name: a `protocol.ServerInfo`'s `Table`.

        Raises:
            ReplayError: if the server does not answer in `timeout` seconds.
        """
        found = self._call("ServerInfo", protocol.Empty(), protocol.ServerInfo, timeout)
        return {table.name: table for table in found.tables}

    def check_schema(self, tables: Collection[str], record_bytes: int, timeout: float = 10.0) -> None:
        """Checks that records of so many bytes go into the tables: the server itself does not look.

        Raises:
            ReplayError: if the server does not answer in `timeout` seconds.
            SchemaError: if a table is not there, or holds something else.
        """
        found = self.tables(timeout)
        for name in tables:
            if name not in found:
                there = ", ".join(sorted(found)) or "none"
                raise SchemaError(f"no table {name!r} at {self.address}; there are: {there}")
            spec = found[name].signature.tensor_spec
            shape = [dim.size for dim in spec.shape.dim]
            if spec.dtype != protocol.UINT8 or shape != [record_bytes]:
                raise SchemaError(
                    f"table {name!r} at {self.address} does not hold records of {record_bytes} bytes, "
                    f"but type {spec.dtype} of shape {shape}"
                )

    def checkpoint(self, timeout: float = 120.0) -> str:
        """Has the server save all tables; returns the folder that it wrote, as the server sees it.

        Raises:
            ReplayError: if it has not done so in `timeout` seconds; it may do so later.
        """
        return self._call("Checkpoint", protocol.Empty(), protocol.CheckpointResponse, timeout).path

    def mutate(
        self,
        table: str,
        updates: Mapping[int, float] | None = None,
        deletes: Collection[int] = (),
        timeout: float = 10.0,
    ) -> None:
        """Gives items other priorities, and deletes items; keys that are not there are ignored.

        Raises:
            ReplayError: if the server does not answer in `timeout` seconds.
        """
        request = protocol.MutateRequest(table=table, deletes=deletes)
        for key, priority in (updates or {}).items():
            request.updates.add(key=key, priority=priority)
        self._call("MutatePriorities", request, protocol.Empty, timeout)

    def reset(self, table: str, timeout: float = 10.0) -> None:
        """Empties a table.

        Raises:
            ReplayError: if the server does not answer in `timeout` seconds.
        """
        self._call("Reset", protocol.ResetRequest(table=table), protocol.Empty, timeout)

    def close(self) -> None:
        """Ends what is under way, and closes the connection."""
        self._channel.close()

    def _call(self, method: str, request: Any, answer: Any, timeout: float) -> Any:
        call = self._channel.unary_unary(
            protocol.SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return call(request, timeout=timeout)
        except Unanswered as error:
            said = channels.reason(error)
            raise ReplayError(f"the replay at {self.address} did not answer: {said}") from error
