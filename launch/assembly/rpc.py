"""Clients of the nodes' RPCs, with time-outs and with errors that nodes know.

Nodes know neither Launchpad nor how calls travel: they get these.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np

from classact import calls
from classact.calls import CallError as RpcError
from classact.calls import StoppedError
from classact.launch.assembly.launchpad import lp
from classact.nodes import inference_server

# Time-out of every call, in seconds. An inference server's first answer waits for
# the learner's first parameters and for XLA; everything else answers in seconds.
CALL_SECONDS = calls.CALL_SECONDS
# Between two tries to have a batch scored where too much waits.
_BUSY_SECONDS = 0.5

__all__ = ["CALL_SECONDS", "InferenceClient", "LearnerClient", "RpcError", "StoppedError"]


def _own_stop() -> threading.Event:
    """The stop event of the node that this thread belongs to; one that is never set outside of nodes."""
    try:
        return lp.stop_event()
    except RuntimeError:
        return threading.Event()


class LearnerClient:
    """The learner as the other nodes see it; calls time out, and end with `stop`."""

    def __init__(self, client: calls.Client, stop: threading.Event | None = None) -> None:
        """Takes the client that the learner's handle gives, and what ends calls.

        `stop` is by default the stop event of the node whose thread this is called in.
        """
        self._client = client
        self._stop = stop or _own_stop()

    def get_parameters(
        self, names: Sequence[str], newer_than: int, timeout: float, follow: bool = False
    ) -> tuple[int, bool, dict[str, memoryview]] | None:
        """See `Learner.get_parameters`; None also when stopped."""
        with contextlib.suppress(StoppedError):
            return self._call("get_parameters", list(names), newer_than, timeout, follow)
        return None

    def get_step(self) -> int:
        """See `Learner.get_step`; -1 also when stopped."""
        with contextlib.suppress(StoppedError):
            return int(self._call("get_step"))
        return -1

    def report_evaluation(self, evaluator: str, step: int) -> None:
        """See `Learner.report_evaluation`; nobody waits for it any more when stopped."""
        with contextlib.suppress(StoppedError):
            self._call("report_evaluation", evaluator, step)

    def report_cursor(self, data_set: str, cursor: str) -> None:
        """See `Learner.report_cursor`."""
        self._call("report_cursor", data_set, cursor)

    def report_opening(self, data_set: str, seconds: float) -> None:
        """See `Learner.report_opening`."""
        self._call("report_opening", data_set, seconds)

    def get_opening_seconds(self, data_set: str) -> float | None:
        """See `Learner.get_opening_seconds`; None also from a learner that is gone."""
        with contextlib.suppress(RpcError):
            found = self._call("get_opening_seconds", data_set)
            return None if found is None else float(found)
        return None

    def get_cursors(self, data_set: str) -> str:
        """See `Learner.get_cursors`."""
        return str(self._call("get_cursors", data_set))

    def get_clock(self, data_set: str, shard: int) -> str:
        """See `Learner.get_clock`."""
        return str(self._call("get_clock", data_set, shard))

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._client.call(method, arguments, stop=self._stop)


class InferenceClient:
    """An inference server as a run loop in another process sees it."""

    def __init__(self, client: calls.Client, stop: threading.Event | None = None) -> None:
        """Takes the client that the server's handle gives, and `stop` as `LearnerClient`."""
        self._client = client
        self._stop = stop or _own_stop()

    def __call__(self, batch: inference_server.Batch) -> inference_server.Scores:
        """Scores a batch; see `InferenceServer.score`. Asks again while too much waits at the server.

        Raises:
            futures.CancelledError: if the server has stopped, or this node was asked to.
        """
        request = {name: np.ascontiguousarray(array) for name, array in batch.items()}
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            try:
                return self._ask(request)
            except calls.BusyError:
                # Other run loops' batches fill it, or it is stopping.
                if time.monotonic() > deadline:
                    raise
                self._stop.wait(_BUSY_SECONDS)

    def _ask(self, request: inference_server.Batch) -> inference_server.Scores:
        try:
            found = self._client.call("score_arrays", [request], stop=self._stop)
        except StoppedError as error:
            raise futures.CancelledError(str(error)) from None
        except calls.RemoteError as error:
            if error.kind == futures.CancelledError.__name__:
                raise futures.CancelledError(str(error)) from None
            raise
        return inference_server.Scores(*found)
