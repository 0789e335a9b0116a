"""The inference server: scores batches at one fixed size (Appendix A.6)."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from classact.nodes import activity, parameters, scoring, tally
from classact.nodes import mesh as mesh_lib
from classact.nodes import metrics as metrics_lib

Batch = Mapping[str, np.ndarray]
# How long an idle server waits before it looks at the stop signal.
_IDLE_SECONDS = 0.5


class Scores(NamedTuple):
    """The answer to a request.

    Attributes:
        values: float32[B].
        step: learner step of the parameters that made them; -1 if the policy's
            models never change.
        carried: what a joint choice needs of each example beside, arrays [B, ...] by field of
            its record; empty with other policies.
    """

    values: np.ndarray
    step: int
    carried: Mapping[str, np.ndarray] = MappingProxyType({})


class _Request(NamedTuple):
    batch: dict[str, np.ndarray]
    size: int
    answer: "futures.Future[Scores]"


class InferenceServer:
    """Scores the batches of its run loops, several together, one shape for XLA.

    Requests wait until they fill a batch of `batch_size`, at most
    `max_wait_seconds`; what is missing then is padded. Callers block in `score`
    until their part is done. One thread computes, one follows the learner's
    parameters.
    """

    def __init__(
        self,
        score_batch: scoring.ScoreBatch,
        fixed: Mapping[str, Any],
        follower: parameters.Follower | None,
        roles: Mapping[str, str],
        batch_size: int,
        stop: threading.Event,
        metrics: metrics_lib.MetricsWriter | None = None,
        max_wait_seconds: float = 0.005,
        first_parameters_seconds: float = 300.0,
        log_every: int = 200,
        mesh: jax.sharding.Mesh | None = None,
        counts: tally.Tally | None = None,
    ) -> None:
        """Starts the computing thread.

        Args:
            score_batch: of `scoring.make_scorer`; its batches also have
                `valid`, bool[batch_size], false where they are padded.
            fixed: variables by role of the models that never change.
            follower: of the models that the learner trains; None if there are none.
            roles: role by the name under which the learner publishes a model.
            batch_size: examples per computation; with several devices rounded up to
                a multiple of their number.
            stop: ends the server.
            metrics: where to write `inference/*`; None: nowhere.
            max_wait_seconds: how long a part-filled batch waits for more.
            first_parameters_seconds: how long to wait for the learner's first
                parameters before failing.
            log_every: batches between two lines of metrics.
            mesh: this process's devices, over which a batch is split; the models are
                whole on each. None: one device.
            counts: told how many `examples` are scored and how many `slots`, padding included,
                with each batch that is handed to the device, and the device's `busy_seconds`;
                None: nobody counts.
        """
        self._counts = counts
        self._score_batch = score_batch
        self._mesh = mesh
        self._fixed = mesh_lib.everywhere(mesh, fixed)
        self._follower = follower
        self._roles = dict(roles)
        devices = mesh.size if mesh is not None else 1
        self._batch_size = -(-batch_size // devices) * devices
        self._stop = stop
        self._metrics = metrics
        self._max_wait_seconds = max_wait_seconds
        self._first_parameters_seconds = first_parameters_seconds
        self._log_every = log_every
        self._requests: queue.Queue[_Request] = queue.Queue()
        self._error: BaseException | None = None
        self._finished = 0.0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def score(self, batch: Batch) -> Scores:
        """Scores a batch; blocks until it is done or the server stops.

        Args:
            batch: arrays `[B, ...]` with B at most the server's batch size.

        Raises:
            ValueError: if the batch is larger than the server's.
            futures.CancelledError: if the server stopped before.
            RuntimeError: if the server failed.
        """
        size = len(next(iter(batch.values())))
        if size > self._batch_size:
            raise ValueError(
                f"a request of {size} examples does not fit the server's batch of {self._batch_size}"
            )
        request = _Request(dict(batch), size, futures.Future())
        self._requests.put(request)
        while True:
            try:
                return request.answer.result(timeout=_IDLE_SECONDS)
            except futures.TimeoutError:
                if self._error is not None:
                    raise RuntimeError("the inference server failed") from self._error
                if self._stop.is_set():
                    raise futures.CancelledError("the inference server stopped") from None

    def wait(self) -> None:
        """Blocks until the server stops.

        Raises:
            RuntimeError: if it failed, with the cause.
        """
        while not self._stop.wait(_IDLE_SECONDS):
            if self._error is not None:
                raise RuntimeError("the inference server failed") from self._error
        self._thread.join(timeout=2 * _IDLE_SECONDS)

    def _run(self) -> None:
        with activity.part("scoring"):
            self._serve()

    def _serve(self) -> None:
        statistics = _Statistics()
        held: list[_Request] = []
        running: _Running | None = None
        try:
            while not self._stop.is_set():
                # The next batch is handed to the device while it still computes the
                # last one, so that it does not wait for Python in between.
                if running is None:
                    with activity.waiting("requests"):
                        requests, held = self._gather(held, wait=True)
                else:
                    requests, held = self._gather(held, wait=False)
                started = self._start(requests) if requests else None
                if running is not None:
                    self._finish(running, statistics)
                    activity.progressed()
                running = started
        # Whatever it was, run loops wait for it: it is handed to them and to `wait`.
        except Exception as error:
            self._error = error

    def _gather(self, held: list[_Request], wait: bool) -> tuple[list[_Request], list[_Request]]:
        """Takes requests that fit one batch, and those to hold for the next.

        Without `wait` it takes a full batch or none.
        """
        requests = list(held)
        size = sum(request.size for request in requests)
        patience = self._max_wait_seconds if requests else _IDLE_SECONDS
        deadline = time.monotonic() + (patience if wait else 0.0)
        while size < self._batch_size:
            try:
                request = self._requests.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return (requests, []) if wait else ([], requests)
            if size + request.size > self._batch_size:
                return requests, [request]
            if wait and not requests:
                deadline = time.monotonic() + self._max_wait_seconds
            requests.append(request)
            size += request.size
        return requests, []

    def _start(self, requests: list[_Request]) -> "_Running":
        """Hands a batch to the device; does not wait for the scores."""
        if len(requests) == 1:
            batch = requests[0].batch
        else:
            names = requests[0].batch.keys()
            batch = {name: np.concatenate([r.batch[name] for r in requests]) for name in names}
        size = sum(request.size for request in requests)
        missing = self._batch_size - size
        if missing:
            batch = {
                name: np.concatenate([array, np.broadcast_to(array[:1], (missing, *array.shape[1:]))])
                for name, array in batch.items()
            }
        # For scores in which the other examples of a batch have a part.
        batch = {**batch, "valid": np.arange(self._batch_size) < size}
        step, variables = self._variables()
        placed = mesh_lib.place(self._mesh, batch) if self._mesh is not None else batch
        if self._counts is not None:
            self._counts.add(examples=size, slots=self._batch_size)
        started = time.monotonic()
        return _Running(requests, step, self._score_batch(variables, placed, np.int32(step)), started)

    def _finish(self, running: "_Running", statistics: "_Statistics") -> None:
        """Waits for a batch's scores and answers its requests."""
        found = running.values if isinstance(running.values, dict) else {"score": running.values}
        carried = {name: np.asarray(array) for name, array in found.items()}
        values = carried.pop("score")
        if self._counts is not None:
            # Two batches may be on the device, of which it computes one.
            began = max(running.started, self._finished)
            self._finished = time.monotonic()
            self._counts.add(busy_seconds=self._finished - began)
        offset = 0
        for request in running.requests:
            rows = slice(offset, offset + request.size)
            own = {name: array[rows] for name, array in carried.items()}
            request.answer.set_result(Scores(values[rows], running.step, own))
            offset += request.size
        statistics.add(offset, self._batch_size)
        if self._metrics is not None and statistics.batches == self._log_every:
            age = self._follower.age_seconds if self._follower is not None else 0.0
            line = {**statistics.pop(), "inference/parameter_age_seconds": age}
            self._metrics.write(max(running.step, 0), line)

    def _variables(self) -> tuple[int, dict[str, Any]]:
        if self._follower is None:
            return -1, self._fixed
        with activity.waiting("the learner's parameters"):
            step, followed = self._follower.latest(self._first_parameters_seconds)
        return step, {**self._fixed, **{self._roles[name]: v for name, v in followed.items()}}


class _Running(NamedTuple):
    """A batch on the device."""

    requests: list[_Request]
    step: int
    values: jax.Array | dict[str, jax.Array]
    started: float


class _Statistics:
    """Counts of the batches since the last line of metrics."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self.batches = self._examples = self._slots = 0

    def add(self, examples: int, slots: int) -> None:
        self.batches += 1
        self._examples += examples
        self._slots += slots

    def pop(self) -> dict[str, float]:
        elapsed = time.monotonic() - self._since
        result = {
            "inference/examples_per_second": self._examples / elapsed,
            "inference/batch_fill": self._examples / self._slots,
        }
        self.__init__()  # type: ignore[misc]
        return result


ScoreFn = Callable[[Batch], Scores]
