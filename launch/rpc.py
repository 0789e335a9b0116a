"""Clients of the nodes' RPCs, with time-outs and with errors that nodes know.

Nodes do not know Launchpad: they get these instead of Courier's clients.
"""

from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np
from pybind11_abseil.status import StatusNotOk

from classact.nodes import inference_server, parameters

# Time-out of every call, in seconds. An inference server's first answer waits for
# the learner's first parameters and for XLA; everything else answers in seconds.
CALL_SECONDS = 600.0


class RpcError(RuntimeError):
    """A node could not be reached, or failed while it answered."""


def _call(method: Any, *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except StatusNotOk as error:
        raise RpcError(str(error)) from None


class LearnerClient:
    """The learner as the other nodes see it; calls time out."""

    def __init__(self, client: Any) -> None:
        """Takes the Courier client that the learner's handle gives."""
        self._client = client

    def get_parameters(
        self, names: Sequence[str], newer_than: int, timeout: float
    ) -> tuple[int, bool, dict[str, bytes]] | None:
        """See `Learner.get_parameters`."""
        return _call(self._client.get_parameters, list(names), newer_than, timeout)

    def get_step(self) -> int:
        """See `Learner.get_step`."""
        return int(_call(self._client.get_step))

    def report_evaluation(self, evaluator: str, step: int) -> None:
        """See `Learner.report_evaluation`."""
        _call(self._client.report_evaluation, evaluator, step)

    def report_cursor(self, data_set: str, cursor: str) -> None:
        """See `Learner.report_cursor`."""
        _call(self._client.report_cursor, data_set, cursor)

    def get_cursors(self, data_set: str) -> str:
        """See `Learner.get_cursors`."""
        return str(_call(self._client.get_cursors, data_set))


class InferenceClient:
    """An inference server as a run loop in another process sees it."""

    def __init__(self, client: Any) -> None:
        """Takes the Courier client that the server's handle gives."""
        self._client = client

    def __call__(self, batch: inference_server.Batch) -> inference_server.Scores:
        """Scores a batch; see `InferenceServer.score`.

        Raises:
            futures.CancelledError: if the server has stopped.
        """
        request = parameters.encode({name: np.ascontiguousarray(array) for name, array in batch.items()})
        try:
            values, step = self._client.score_bytes(request)
        except StatusNotOk as error:
            if futures.CancelledError.__name__ in str(error):
                raise futures.CancelledError(str(error)) from None
            raise RpcError(str(error)) from None
        return inference_server.Scores(parameters.decode(values), step)
