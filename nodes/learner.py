"""The learner: trains on what the replay selects and publishes its parameters."""

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from classact.nodes import checkpoints, parameters, training
from classact.nodes import metrics as metrics_lib

# Longest single wait for a batch, between two looks at the stop signal.
_POLL_SECONDS = 1.0


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


class NoDataError(RuntimeError):
    """The replay delivered nothing for too long."""


class Sampled(NamedTuple):
    """A sampled batch: what the models need on the device, the rest on the host.

    Attributes:
        batch: arrays on the device, `[B, ...]`.
        size: B.
        scored_step: int64[B], learner step of the parameters that scored each.
        corrupted: share of labels that the noise wrapper changed; None if the
            data set's truth is unknown.
    """

    batch: dict[str, jax.Array]
    size: int
    scored_step: np.ndarray
    corrupted: float | None


def to_device(batch: Mapping[str, np.ndarray]) -> Sampled:
    """Starts moving a batch of the replay to the device; used as its `transfer`."""
    corrupted = float(np.mean(batch["label"] != batch["clean_label"])) if "clean_label" in batch else None
    host_only = ("id", "score", "scored_step", "clean_label")
    # The views into Reverb's records are not aligned: made contiguous here, in
    # the reading thread.
    needed = {name: np.ascontiguousarray(array) for name, array in batch.items() if name not in host_only}
    return Sampled(jax.device_put(needed), len(batch["id"]), np.array(batch["scored_step"]), corrupted)


class Dataset(Protocol):
    """What the learner needs of `replay.dataset.ReplayDataset`."""

    def next(self, timeout: float) -> Sampled:
        """The next batch; raises TimeoutError after `timeout` seconds."""

    def close(self) -> None:
        """Waits for its threads."""


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """How long and how the learner runs.

    Attributes:
        steps: updates to make.
        log_every: updates between two lines of metrics.
        checkpoint_every: updates between checkpoints; 0: only at the end.
        evaluators: names of the evaluators whose last report the run waits for.
        no_data_seconds: the run fails when no batch comes for so long.
        final_evaluation_seconds: how long the last reports may take.
    """

    steps: int
    log_every: int = 20
    checkpoint_every: int = 0
    evaluators: tuple[str, ...] = ()
    no_data_seconds: float = 300.0
    final_evaluation_seconds: float = 600.0


class Learner:
    """Runs updates until its last step; its public methods are also its RPCs."""

    def __init__(
        self,
        config: LearnerConfig,
        trained: Mapping[str, training.TrainedModel],
        update: Callable[..., Any],
        state: training.TrainState,
        sub_batches: Dataset,
        super_batches: "SuperBatches | None",
        stop: threading.Event,
        metrics: metrics_lib.MetricsWriter,
        checkpointer: "checkpoints.Checkpointer | None" = None,
        replay_statistics: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Builds the learner; `run` starts it.

        Args:
            config: lengths and intervals.
            trained: the models by name.
            update: of `training.make_update`; donates the state.
            state: to begin with.
            sub_batches: prioritized batches.
            super_batches: IID super-batches, if a model learns from them.
            stop: ends `run` early.
            metrics: where to write `train/*`, `selection/*` and `replay/*`.
            checkpointer: saves the state; None: nothing is saved.
            replay_statistics: size and counts of the tables, asked for at every
                line of metrics.
        """
        self._config = config
        self._trained = trained
        self._update = update
        self._state = state
        self._sub_batches = sub_batches
        self._super_batches = super_batches
        self._stop = stop
        self._metrics = metrics
        self._checkpointer = checkpointer
        self._replay_statistics = replay_statistics
        self._store = parameters.ParameterStore()
        self._reports = threading.Condition()
        self._last_report = dict.fromkeys(config.evaluators, -1)

    def get_parameters(
        self, names: Sequence[str], newer_than: int, timeout: float
    ) -> tuple[int, bool, dict[str, bytes]] | None:
        """RPC: parameters newer than a step; blocks up to `timeout` seconds.

        Returns:
            (step, finished, models as bytes), or None after the time-out.

        Raises:
            ValueError: if a name is not a model that is trained here.
        """
        unknown = sorted(set(names) - set(self._trained))
        if unknown:
            raise ValueError(f"the learner trains {', '.join(self._trained)}, not {', '.join(unknown)}")
        found = self._store.get(tuple(names), newer_than, timeout)
        return None if found is None else (found.step, found.finished, dict(found.payload))

    def report_evaluation(self, evaluator: str, step: int) -> None:
        """RPC: an evaluator tells that its metrics of a step are written."""
        with self._reports:
            self._last_report[evaluator] = max(step, self._last_report.get(evaluator, -1))
            self._reports.notify_all()

    def run(self) -> None:
        """Trains to the last step, publishes it, and waits for the last evaluations.

        Returns early when stopped.

        Raises:
            NonFiniteLossError: naming the step.
            NoDataError: if the replay delivers nothing for `no_data_seconds`.
            TimeoutError: if an evaluator's last report does not come.
        """
        step = 0
        self._store.offer(step, self._state.variables())
        interval = _Interval()
        in_flight: collections.deque[tuple[int, training.Metrics]] = collections.deque()
        while step < self._config.steps and not self._stop.is_set():
            started = time.monotonic()
            sampled = self._next(self._sub_batches)
            super_batch = self._super_batches.next(self._next) if self._super_batches else None
            waited = time.monotonic() - started
            if sampled is None or (self._super_batches and super_batch is None):
                break
            self._state, step_metrics = self._update(self._state, sampled.batch, super_batch)
            step += 1
            self._store.offer(step, self._state.variables())
            in_flight.append((step, step_metrics))
            interval.add(step, sampled)
            # One update behind: the device always has work while the host waits.
            if len(in_flight) > 1:
                interval.add_metrics(*_checked(in_flight.popleft()))
            interval.add_times(waited, time.monotonic() - started - waited)
            if step % self._config.log_every == 0 or step == self._config.steps:
                self._metrics.write(step, {**interval.pop(), **self._replay_statistics()})
            every = self._config.checkpoint_every
            # The last step is saved at the end.
            if self._checkpointer and every and step % every == 0 and step < self._config.steps:
                self._checkpointer.save(step, self._state)
        for item in in_flight:
            _checked(item)
        if step == self._config.steps:
            self._finish(step)

    def close(self) -> None:
        """Ends the threads; `stop` must be set."""
        self._store.close()
        self._sub_batches.close()
        if self._super_batches:
            self._super_batches.close()

    def _finish(self, step: int) -> None:
        self._store.offer(step, self._state.variables(), final=True)
        if self._checkpointer:
            self._checkpointer.save(step, self._state)
            self._checkpointer.wait()
        deadline = time.monotonic() + self._config.final_evaluation_seconds
        with self._reports:
            while not self._stop.is_set():
                late = [name for name in self._config.evaluators if self._last_report[name] < step]
                if not late:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"evaluators {', '.join(late)} did not report on step {step} "
                        f"in {self._config.final_evaluation_seconds} s"
                    )
                self._reports.wait(_POLL_SECONDS)

    def _next(self, dataset: Dataset) -> Sampled | None:
        """The next batch; None when stopped."""
        deadline = time.monotonic() + self._config.no_data_seconds
        while not self._stop.is_set():
            try:
                return dataset.next(_POLL_SECONDS)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise NoDataError(
                        f"the replay delivered no batch for {self._config.no_data_seconds} s; "
                        "see the logs of the run loops and inference servers"
                    ) from None
        return None


class SuperBatches:
    """The IID super-batch of Algorithm 2: the last examples of the stream.

    Every update takes as many new examples as were scored for it and trains on
    the newest `size`. With a filter ratio of 1 − b/size that is exactly one fresh
    super-batch per update, as in the paper; with a smaller filter ratio each
    example is part of several super-batches.
    """

    def __init__(self, dataset: Dataset, size: int) -> None:
        """Builds the window.

        Args:
            dataset: of the stream table, whose batches divide `size`.
            size: examples of a super-batch.
        """
        self._dataset = dataset
        self._size = size
        self._window: collections.deque[dict[str, jax.Array]] = collections.deque()
        self._held = 0

    def next(self, read: Callable[[Dataset], Sampled | None]) -> dict[str, jax.Array] | None:
        """Returns the next super-batch, or None when `read` does."""
        while True:
            sampled = read(self._dataset)
            if sampled is None:
                return None
            self._window.append(sampled.batch)
            self._held += sampled.size
            if self._held >= self._size:
                break
        chunks = list(self._window)
        self._held -= len(jax.tree.leaves(self._window.popleft())[0])
        return chunks[0] if len(chunks) == 1 else _concatenate(chunks)

    def close(self) -> None:
        """Waits for the data set's threads."""
        self._dataset.close()


@jax.jit
def _concatenate(chunks: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    return jax.tree.map(lambda *arrays: jax.numpy.concatenate(arrays), *chunks)


def _checked(item: tuple[int, training.Metrics]) -> tuple[int, dict[str, float]]:
    """Brings an update's metrics to the host; blocks until it is computed."""
    step, metrics = item
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, value in values.items():
        if name.endswith("loss") and not math.isfinite(value):
            raise NonFiniteLossError(f"{name} is {value} at step {step}")
    return step, values


class _Interval:
    """Sums and means since the last line of metrics."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._values: dict[str, list[float]] = collections.defaultdict(list)

    def add(self, step: int, sampled: Sampled) -> None:
        self._sums["train/examples"] += sampled.size
        scored = sampled.scored_step[sampled.scored_step >= 0]
        if scored.size:
            # The update that made `step` sampled at step − 1.
            staleness = step - 1 - scored
            self._values["selection/staleness_steps"].append(float(staleness.mean()))
            self._values["selection/staleness_max_steps"].append(float(staleness.max()))
        if sampled.corrupted is not None:
            self._values["selection/corrupted_fraction"].append(sampled.corrupted)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._values[name].append(value)

    def add_times(self, waited: float, stepped: float) -> None:
        self._sums["train/data_wait_seconds"] += waited
        self._sums["train/step_seconds"] += stepped

    def pop(self) -> dict[str, float]:
        line: dict[str, float] = dict(self._sums)
        for name, values in self._values.items():
            line[name] = max(values) if "_max_" in name else sum(values) / len(values)
        self._sums.clear()
        self._values.clear()
        return line
