"""The stream by which one writer's items reach a server, and which of them have arrived."""

import queue
import threading
from collections.abc import Collection

from classact.replay import channel as channels
from classact.replay import protocol
from classact.replay.channel import Unanswered
from classact.replay.server_calls import ReplayError

_CLOSE_SECONDS = 2.0


class InsertStream:
    """One stream of requests; the server confirms each item once it is in its table.

    What has been sent says nothing: gRPC holds requests on both sides while the table is full.
    So the items that are not confirmed are counted. The stream is never half-closed before it is
    given up: the server would end it at once, and confirm no more of what it still inserts.
    """

    def __init__(self, address: str) -> None:
        """Connects; blocks for nothing."""
        self._address = address
        self._channel = channels.connect(address)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._unconfirmed: set[int] = set()
        self._failure: ReplayError | None = None
        self._call = channels.stream(self._channel, "InsertStream")(iter(self._requests.get, None))
        self._thread = threading.Thread(target=self._confirm, name="replay confirmations", daemon=True)
        self._thread.start()

    def send(self, request: bytes, items: Collection[int]) -> None:
        """Sends a request on its way; blocks for nothing. `items`: the keys of its items."""
        with self._changed:
            self._unconfirmed.update(items)
        self._requests.put(request)

    def wait(self, max_pending: int, timeout: float) -> bool:
        """Blocks until at most so many items are unconfirmed; False if that takes over `timeout` seconds.

        Raises:
            ReplayError: if the server ended the stream.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure or len(self._unconfirmed) <= max_pending, timeout)
            if self._failure is not None:
                raise self._failure
            return len(self._unconfirmed) <= max_pending

    def has_confirmed(self, items: Collection[int]) -> bool:
        """Whether all these items are in their tables."""
        with self._changed:
            return self._unconfirmed.isdisjoint(items)

    @property
    def unconfirmed(self) -> set[int]:
        """The keys of the items that may or may not be in their tables."""
        with self._changed:
            return set(self._unconfirmed)

    def close(self) -> None:
        """Gives up what is not confirmed, and closes the connection; blocks for moments."""
        self._call.cancel()
        # Lets gRPC's own thread go, which waits for requests.
        self._requests.put(None)
        self._thread.join(_CLOSE_SECONDS)
        self._channel.close()

    def _confirm(self) -> None:
        said = "it ended the stream"
        try:
            for response in self._call:
                keys = protocol.InsertResponse.FromString(response).keys
                with self._changed:
                    self._unconfirmed.difference_update(keys)
                    self._changed.notify_all()
        except Unanswered as error:
            said = channels.reason(error)
        # Whatever it was: who waits for confirmations must hear of it.
        except Exception as error:
            said = repr(error)
        with self._changed:
            self._failure = ReplayError(f"the replay at {self._address} takes no inserts: {said}")
            self._changed.notify_all()
