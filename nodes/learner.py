"""The learner: trains on what the replay selects and publishes its parameters."""

import collections
import dataclasses
import functools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

from classact.calls import exposed
from classact.nodes import activity, divergence, hosts, opening, parameters, saving, table_lines, training
from classact.nodes import batches as batches_lib
from classact.nodes import clocks as clocks_lib
from classact.nodes import interval as interval_lib
from classact.nodes import mesh as mesh_lib
from classact.nodes import metrics as metrics_lib
from classact.nodes import selected as selected_lib

# Longest single wait, between two looks at the stop signal.
_POLL_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """How long and how the learner runs.

    Attributes:
        steps: updates to make.
        log_every: updates between two lines of metrics.
        checkpoint_every: updates between checkpoints, more than `batches.Batches` has ahead; 0:
            only at the end, or when stopped. One that comes due while the tables of the last are
            still being written begins when they are.
        evaluators: names of the evaluators whose last report the run waits for.
        final_evaluation_seconds: how long the last reports may take.
    """

    steps: int
    log_every: int = 20
    checkpoint_every: int = 0
    evaluators: tuple[str, ...] = ()
    final_evaluation_seconds: float = 600.0


class Drawing(Protocol):
    """What a learner draws from: `batches.Batches`, or what does more."""

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets."""

    def draw(self, waited: Callable[[str, float], None] = ...) -> batches_lib.Drawn | None:
        """What the next update is made from; None when stopped."""

    def close(self) -> None:
        """Ends the threads."""


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
        batches: Drawing,
        stop: threading.Event,
        metrics: metrics_lib.MetricsWriter | None,
        saver: saving.Saver | None = None,
        replay_statistics: Mapping[str, Callable[[], Mapping[str, float]]] | None = None,
        mesh: jax.sharding.Mesh | None = None,
        any_host: Callable[[bool], Any] | None = None,
        reported: Mapping[str, int] | None = None,
        record: Callable[[int, Mapping[str, Any], Mapping[str, Any]], None] | None = None,
        clocks: Mapping[str, clocks_lib.Clocks] | None = None,
        openings: opening.Openings | None = None,
        selected: selected_lib.Selected | None = None,
    ) -> None:
        """Builds the learner; `run` starts it.

        Args:
            config: lengths and intervals.
            trained: the models by name.
            update: of `training.make_update`; donates the state.
            state: to begin with, at whatever step.
            batches: of all data sets.
            stop: ends `run` early.
            metrics: where to write `train/*`, `selection/*` and `replay/*`; None:
                nowhere.
            saver: saves the state; None: nothing is saved.
            replay_statistics: by data set what gives the size and the counts of its
                table, and as `<part>/<name>` those of its parts; asked for at every
                line of metrics, by a thread of its own.
            mesh: the devices that `state` and the batches are on; None: one.
            any_host: of `mesh.any_host`; None: there is one host.
            reported: last steps that evaluators have reported to an earlier process.
            record: told for each update the ids that it was made from, and their scores, by data set.
            clocks: of the tables from which the batches are drawn, by data set.
            openings: told which data sets are being opened.
            selected: counts what the updates are made from.
        """
        self._config = config
        self._trained = trained
        self._update = update
        self._state = state
        self._batches = batches
        self._stop = stop
        self._lines = table_lines.TableLines(metrics, replay_statistics or {}) if metrics else None
        self._saver = saver
        self._record = record
        self._clocks = dict(clocks or {})
        self._openings = openings or opening.Openings()
        self._selected = selected
        self._store = parameters.ParameterStore(functools.partial(mesh_lib.first_copy, mesh))
        self._hosts = hosts.Hosts[batches_lib.Drawn](any_host) if any_host is not None else None
        self._reports = threading.Condition()
        self._last_report = {**dict.fromkeys(config.evaluators, -1), **(reported or {})}

    @exposed
    def get_parameters(
        self, names: Sequence[str], newer_than: int, timeout: float, follow: bool = False
    ) -> tuple[int, bool, dict[str, memoryview]] | None:
        """RPC: parameters newer than a step; blocks up to `timeout` seconds.

        `follow`: whether the client will want all later ones too; see `ParameterStore.get`.

        Returns:
            (step, finished, models as bytes), or None after the time-out.

        Raises:
            ValueError: if a name is not a model that is trained here.
        """
        unknown = sorted(set(names) - set(self._trained))
        if unknown:
            raise ValueError(f"the learner trains {', '.join(self._trained)}, not {', '.join(unknown)}")
        found = self._store.get(tuple(names), newer_than, timeout, follow)
        return None if found is None else (found.step, found.finished, dict(found.payload))

    @exposed
    def get_step(self) -> int:
        """RPC: the step of the newest parameters."""
        return self._store.step

    @exposed
    def report_evaluation(self, evaluator: str, step: int) -> None:
        """RPC: an evaluator tells that its metrics of a step are written."""
        with self._reports:
            self._last_report[evaluator] = max(step, self._last_report.get(evaluator, -1))
            self._reports.notify_all()

    @exposed
    def report_cursor(self, data_set: str, cursor: str) -> None:
        """RPC: a run loop tells where it is, as JSON: all before it is in the tables."""
        if self._saver is not None:
            self._saver.cursors.put(data_set, json.loads(cursor))

    @exposed
    def report_opening(self, data_set: str, seconds: float) -> None:
        """RPC: a run loop tells how long ago it last got on with opening its data."""
        self._openings.put(data_set, seconds)

    @exposed
    def get_opening_seconds(self, data_set: str) -> float | None:
        """RPC: another host asks how long ago opening a data set got on; None: nobody opens it."""
        return self._openings.seconds(data_set)

    @exposed
    def get_cursors(self, data_set: str) -> str:
        """RPC: from where a data set's run loops go on, a JSON list of cursors."""
        return json.dumps(self._saver.cursors.get(data_set) if self._saver is not None else [])

    @exposed
    def get_clock(self, data_set: str, shard: int) -> str:
        """RPC: the time of the race in a shard's table, see `race.Clock`, as JSON."""
        return self._clocks[data_set].all()[shard].to_json()

    def run(self) -> None:
        """Trains to the last step, publishes it, and waits for the last evaluations.

        Returns early when stopped, with its state saved; all hosts then return after the
        same update.

        Raises:
            DivergedError: if a loss, or what is to be saved or published as the last, is not
                finite, naming the step; on every host.
            NoDataError: if a data set delivers nothing for too long; other hosts fail in
                their next update, or wait in it until the engine stops them.
            TimeoutError: if an evaluator's last report does not come.
        """
        with activity.part("learner"):
            self._run()

    def _run(self) -> None:
        step = int(self._state.step)
        try:
            if step:
                # Of a checkpoint, which an earlier version may have saved.
                divergence.check_state(step, self._state)
            self._store.offer(step, self._state.variables(), final=step == self._config.steps)
            step = self._train(step)
            divergence.check_state(step, self._state)
            if step < self._config.steps and self._saver:
                with activity.busy("saving a checkpoint"):
                    self._saver.save_stopped(step, self._state)
        finally:
            if self._lines:
                self._lines.close()
            self._batches.close()
            if step < self._config.steps and self._stop.is_set():
                # Who still waits for parameters would hold up the server's end. Not after an
                # error: another process goes on then, and is followed.
                self._store.close()
        if step == self._config.steps:
            self._finish(step)
        if self._hosts is not None:
            # The first one waits for the last evaluations.
            with activity.waiting("the learner's other hosts"):
                self._hosts.part()

    def close(self) -> None:
        """Ends the threads; `stop` must be set."""
        self._store.close()
        self._batches.close()

    def _train(self, step: int) -> int:
        """Makes updates until the last step, or until stopped; returns the step."""
        interval = interval_lib.Interval(self._batches.data_sets)
        in_flight: collections.deque[tuple[int, training.Metrics]] = collections.deque()
        # Whether a checkpoint is to be saved, maybe once the one before it is on its way.
        every, due = self._config.checkpoint_every, False
        while step < self._config.steps:
            started = time.monotonic()
            drawn = None if self._stop.is_set() else self._batches.draw(interval.add_wait)
            if self._hosts is not None:
                with activity.waiting("the learner's other hosts"):
                    drawn = self._hosts.agree(drawn)
            if drawn is None:
                break
            trained_from = time.monotonic()
            self._state, step_metrics = self._update(
                self._state,
                {name: item.batch for name, item in drawn.sub_batches.items()},
                drawn.super_batches,
            )
            step += 1
            if self._record:
                self._record(step, *batches_lib.ids_and_scores(drawn.sub_batches))
            if step < self._config.steps:
                self._store.offer(step, self._state.variables())
            in_flight.append((step, step_metrics))
            repeated = self._selected.add(drawn.sub_batches) if self._selected else {}
            interval.add(step, drawn.sub_batches, repeated)
            # An accelerator has the next update queued while the host waits; a CPU is the host.
            if len(in_flight) > (jax.default_backend() != "cpu"):
                interval.add_metrics(self._metrics_of(*in_flight.popleft()))
            interval.add_times(trained_from - started, time.monotonic() - trained_from)
            if self._lines:
                self._lines.go_on()
            if self._lines and (step % self._config.log_every == 0 or step == self._config.steps):
                self._lines.write(step, interval.pop())
            # The last step is saved at the end.
            due = step < self._config.steps and (due or bool(every and step % every == 0))
            if self._saver and (due or self._saver.is_saving):
                with activity.busy("saving a checkpoint"):
                    interval.add_save(self._saver.go_on())
                    if due and not self._saver.is_saving:
                        while in_flight:
                            interval.add_metrics(self._metrics_of(*in_flight.popleft()))
                        divergence.check_state(step, self._state)  # Nothing that is not finite is saved.
                        interval.add_save(self._saver.begin(step, self._state))
                        due = False
            activity.progressed()
        while in_flight:
            self._metrics_of(*in_flight.popleft())
        if self._lines:
            self._lines.finish()
        return step

    def _metrics_of(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        with hosts.waiting(self._hosts):
            return divergence.checked_metrics(step, metrics)

    def _finish(self, step: int) -> None:
        """Saves the last step before anybody can measure it, and waits for the evaluators."""
        if self._saver:
            with activity.busy("saving the last checkpoint"):
                self._saver.save_finished(step, self._state)
        self._store.offer(step, self._state.variables(), final=True)
        deadline = time.monotonic() + self._config.final_evaluation_seconds
        with self._reports, activity.waiting("the last evaluations"):
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
