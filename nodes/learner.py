"""The learner: trains on what the replay selects and publishes its parameters."""

import collections
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from classact.nodes import checkpoints, hosts, parameters, training
from classact.nodes import mesh as mesh_lib
from classact.nodes import metrics as metrics_lib
from classact.nodes.inference_server import scoring_fields

# Longest single wait for a batch, between two looks at the stop signal.
_POLL_SECONDS = 1.0


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


class NoDataError(RuntimeError):
    """The replay delivered nothing for too long."""


class Sampled(NamedTuple):
    """A sampled batch: what the models need on the device, the rest on the host.

    Attributes:
        batch: arrays on the devices of all hosts, `[B, ...]`.
        size: B.
        scored_step: int64[B / hosts], learner step of the parameters that scored each
            of this host's.
        corrupted: share of this host's labels or captions that a noise wrapper
            changed; None if the data set's truth is unknown.
    """

    batch: dict[str, jax.Array]
    size: int
    scored_step: np.ndarray
    corrupted: float | None


def to_device(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh | None = None) -> Sampled:
    """Starts moving this host's share of a batch to its devices; used as the replay's `transfer`."""
    # The views into Reverb's records are not aligned: made contiguous here, in
    # the reading thread.
    needed = {
        name: np.ascontiguousarray(array)
        for name, array in scoring_fields(batch).items()
        if name not in ("score", "scored_step")
    }
    placed = mesh_lib.place(mesh, needed)
    size = len(next(iter(placed.values())))
    return Sampled(placed, size, np.array(batch["scored_step"]), corrupted_share(batch))


def corrupted_share(batch: Mapping[str, np.ndarray]) -> float | None:
    """The share of a batch that a noise wrapper changed; None if the truth is unknown."""
    if "corrupted" in batch:
        return float(np.mean(batch["corrupted"]))
    if "clean_label" in batch:
        return float(np.mean(batch["label"] != batch["clean_label"]))
    return None


# The next batch and super-batch of each data set.
_Drawn = tuple[dict[str, Sampled], dict[str, dict[str, jax.Array]]]


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
    """Runs updates until its last step; its public methods are also its RPCs.

    Of several hosts that train together each has one, and all make the same updates.
    Only the first is asked for parameters, writes metrics and waits for evaluators.
    """

    def __init__(
        self,
        config: LearnerConfig,
        trained: Mapping[str, training.TrainedModel],
        update: Callable[..., Any],
        state: training.TrainState,
        sub_batches: Mapping[str, Dataset],
        super_batches: "Mapping[str, SuperBatches]",
        stop: threading.Event,
        metrics: metrics_lib.MetricsWriter | None,
        checkpointer: "checkpoints.Checkpointer | None" = None,
        replay_statistics: Mapping[str, Callable[[], Mapping[str, float]]] | None = None,
        mesh: jax.sharding.Mesh | None = None,
        any_host: Callable[[bool], Any] | None = None,
    ) -> None:
        """Builds the learner; `run` starts it.

        Args:
            config: lengths and intervals.
            trained: the models by name.
            update: of `training.make_update`; donates the state.
            state: to begin with.
            sub_batches: prioritized batches by data set.
            super_batches: IID super-batches of those data sets that a model
                learns so from.
            stop: ends `run` early.
            metrics: where to write `train/*`, `selection/*` and `replay/*`; None:
                nowhere.
            checkpointer: saves the state; None: nothing is saved.
            replay_statistics: by data set what gives the size and the counts of its
                table, and as `<part>/<name>` those of its parts; asked for at every
                line of metrics.
            mesh: the devices that `state` and the batches are on; None: one.
            any_host: of `mesh.any_host`; None: there is one host.
        """
        self._config = config
        self._trained = trained
        self._update = update
        self._state = state
        self._sub_batches = dict(sub_batches)
        self._super_batches = dict(super_batches)
        self._stop = stop
        self._metrics = metrics
        self._checkpointer = checkpointer
        self._replay_statistics = dict(replay_statistics or {})
        self._store = parameters.ParameterStore(functools.partial(mesh_lib.first_copy, mesh))
        self._hosts = hosts.Hosts[_Drawn](any_host) if any_host is not None else None
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

        Returns early when stopped; all hosts then return after the same update.

        Raises:
            NonFiniteLossError: naming the step; on every host.
            NoDataError: if a data set delivers nothing for `no_data_seconds`; it
                names the data set and what its replay says is missing. Other hosts fail in
                their next update, or wait in it until the engine stops them.
            TimeoutError: if an evaluator's last report does not come.
        """
        step = 0
        self._store.offer(step, self._state.variables())
        interval = _Interval(tuple(self._sub_batches))
        in_flight: collections.deque[tuple[int, training.Metrics]] = collections.deque()
        while step < self._config.steps:
            started = time.monotonic()
            drawn = None if self._stop.is_set() else self._draw(interval)
            if self._hosts is not None:
                drawn = self._hosts.agree(drawn)
            if drawn is None:
                break
            sampled, super_batches = drawn
            trained_from = time.monotonic()
            self._state, step_metrics = self._update(
                self._state, {name: item.batch for name, item in sampled.items()}, super_batches
            )
            step += 1
            self._store.offer(step, self._state.variables())
            in_flight.append((step, step_metrics))
            interval.add(step, sampled)
            # One update behind: the device always has work while the host waits.
            if len(in_flight) > 1:
                interval.add_metrics(*_checked(in_flight.popleft()))
            interval.add_times(trained_from - started, time.monotonic() - trained_from)
            if self._metrics and (step % self._config.log_every == 0 or step == self._config.steps):
                self._metrics.write(step, {**interval.pop(), **self._tables()})
            every = self._config.checkpoint_every
            # The last step is saved at the end.
            if self._checkpointer and every and step % every == 0 and step < self._config.steps:
                self._checkpointer.save(step, self._state)
        for item in in_flight:
            _checked(item)
        if step == self._config.steps:
            self._finish(step)
        if self._hosts is not None:
            self._hosts.part()

    def close(self) -> None:
        """Ends the threads; `stop` must be set."""
        self._store.close()
        for sub_batches in self._sub_batches.values():
            sub_batches.close()
        for super_batches in self._super_batches.values():
            super_batches.close()

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

    def _tables(self) -> dict[str, float]:
        """The tables' sums, and as `replay/<data set>/…` each one's of several, and their parts'."""
        found: dict[str, float] = collections.defaultdict(float)
        for data_set, ask in self._replay_statistics.items():
            for name, value in ask().items():
                of_part = "/" in name
                if not of_part:
                    found[f"replay/{name}"] += value
                if of_part or len(self._replay_statistics) > 1:
                    found[f"replay/{data_set}/{name}"] = value
        return dict(found)

    def _draw(self, interval: "_Interval") -> _Drawn | None:
        """The next batch and super-batch of each data set; None when stopped."""
        sampled: dict[str, Sampled] = {}
        super_batches: dict[str, dict[str, jax.Array]] = {}
        for name, dataset in self._sub_batches.items():
            started = time.monotonic()
            read = functools.partial(self._next, name)
            found = read(dataset)
            if found is None:
                return None
            sampled[name] = found
            if name in self._super_batches:
                super_batch = self._super_batches[name].next(read)
                if super_batch is None:
                    return None
                super_batches[name] = super_batch
            interval.add_wait(name, time.monotonic() - started)
        return sampled, super_batches

    def _next(self, data_set: str, dataset: Dataset) -> Sampled | None:
        """The next batch of a data set; None when stopped."""
        deadline = time.monotonic() + self._config.no_data_seconds
        while not self._stop.is_set():
            try:
                return dataset.next(_POLL_SECONDS)
            except TimeoutError as error:
                if time.monotonic() > deadline:
                    raise NoDataError(
                        f"the replay of {data_set} delivered no batch for {self._config.no_data_seconds} s "
                        f"({error}); see the logs of the run loops and inference servers"
                    ) from None
        return None


class SuperBatches:
    """The IID super-batch of Algorithm 2: the last examples of the stream.

    Every update takes as many new examples as were scored for it and trains on
    the newest `size`. With a filter ratio of 1 − b/size that is exactly one fresh
    super-batch per update, as in the paper; with a smaller filter ratio each
    example is part of several super-batches.
    """

    def __init__(self, dataset: Dataset, size: int, mesh: jax.sharding.Mesh | None = None) -> None:
        """Builds the window.

        Args:
            dataset: of the stream table, whose batches divide `size`.
            size: examples of a super-batch.
            mesh: the devices that the batches are on; None: one. On several the
                examples of a super-batch are in no order.
        """
        self._dataset = dataset
        self._size = size
        self._concatenate = mesh_lib.concatenator(mesh)
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
        return chunks[0] if len(chunks) == 1 else self._concatenate(chunks)

    def close(self) -> None:
        """Waits for the data set's threads."""
        self._dataset.close()


def _checked(item: tuple[int, training.Metrics]) -> tuple[int, dict[str, float]]:
    """Brings an update's metrics to the host; blocks until it is computed."""
    step, metrics = item
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, value in values.items():
        if name.endswith("loss") and not math.isfinite(value):
            raise NonFiniteLossError(f"{name} is {value} at step {step}")
    return step, values


class _Interval:
    """Sums and means since the last line of metrics.

    With several data sets each one's are there too, as `<group>/<data set>/<name>`.
    """

    def __init__(self, data_sets: Sequence[str]) -> None:
        self._each = len(data_sets) > 1
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._values: dict[str, list[float]] = collections.defaultdict(list)

    def add(self, step: int, sampled: Mapping[str, Sampled]) -> None:
        for data_set, item in sampled.items():
            self._sums["train/examples"] += item.size
            values = {}
            scored = item.scored_step[item.scored_step >= 0]
            if scored.size:
                # The update that made `step` sampled at step − 1.
                staleness = step - 1 - scored
                values["staleness_steps"] = float(staleness.mean())
                values["staleness_max_steps"] = float(staleness.max())
            if item.corrupted is not None:
                values["corrupted_fraction"] = item.corrupted
            for name, value in values.items():
                self._values[f"selection/{name}"].append(value)
                if self._each:
                    self._values[f"selection/{data_set}/{name}"].append(value)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._values[name].append(value)

    def add_wait(self, data_set: str, seconds: float) -> None:
        if self._each:
            self._sums[f"train/{data_set}/data_wait_seconds"] += seconds

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
