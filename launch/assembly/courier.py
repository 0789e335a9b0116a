"""What stands in the place of Courier, Launchpad's RPC in C++: the part of it that Launchpad's nodes use.

`Client` is what a handle becomes in its process, `Server` what a `CourierNode` makes of its
object. The calls are those of `classact.calls`.
"""

import datetime
from collections.abc import Callable
from typing import Any

from classact import calls
from classact.calls import exposure, keys


class Client(calls.Client):
    """A client whose methods are the server's: `client.add(1, 2)`."""

    def __init__(
        self, server_address: str, call_timeout: float | datetime.timedelta = calls.CALL_SECONDS
    ) -> None:
        """Takes the server's address, and the seconds that a call may take.

        Over TCP it has the keys that the environment names; see `calls.keys`.
        """
        if isinstance(call_timeout, datetime.timedelta):
            call_timeout = call_timeout.total_seconds()
        super().__init__(server_address, keys.of_this_process(), timeout=call_timeout)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *arguments, **named: self.call(method, arguments, named)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.address, self._timeout)


class Server:
    """A server of what a node exposes to others (`calls.exposed`), at a node's address."""

    def __init__(self, name: str | None = None, port: str = "", thread_pool_size: int = 16) -> None:
        """Takes the whole address as `port`: that is what ours are told by, see `launchpad`."""
        del name
        self._address = port
        self._threads = thread_pool_size
        self._methods: dict[str, Callable[..., Any]] = {}
        self._server: calls.Server | None = None

    def BindHandler(self, name: str, handler: Callable[..., Any]) -> None:
        """Adds a method, if it is exposed; Launchpad comes with every public one."""
        if exposure.is_exposed(handler):
            self._methods[name] = handler

    def Start(self) -> None:
        """Listens and answers from now on."""
        self._server = calls.Server(
            self._address, self._methods, keys.of_this_process(), threads=self._threads
        )
        self._server.start()

    def Stop(self) -> None:
        """Ends it, after the answers that are on their way."""
        if self._server is not None:
            self._server.stop()

    def Join(self) -> None:
        """Nothing is left to wait for."""
