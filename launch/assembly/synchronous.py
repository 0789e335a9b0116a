"""`--launch=synchronous`: Algorithm 1 or 2 in one process, without nodes or replay.

The oracle of the asynchronous system: it leaves the same files, so that
`classact compare` shows what asynchrony costs.
"""

import functools
import queue
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from classact.experiments.config import ExperimentConfig
from classact.launch.assembly.parts import (
    class_meaning,
    evaluators,
    one_loop,
    shapes,
    sources,
)
from classact.launch.engines.interrupts import Interrupt, interrupts_to
from classact.launch.engines.outcome import Outcome
from classact.nodes import batches as batches_lib
from classact.nodes import (
    checkpoints,
    divergence,
    extremes,
    per_class,
    run_loop,
    score_summary,
    selected,
    synchronous,
    tally,
    training,
)
from classact.nodes.errors import DivergedError
from classact.nodes.metrics import ExampleRecorder, MetricsWriter


def run_synchronous(config: ExperimentConfig, workdir: Any, data: Mapping[str, shapes.DataShape]) -> Outcome:
    """Trains to the last step in this process; blocks until then.

    Args:
        config: the resolved configuration.
        workdir: the run directory.
        data: shapes of each data set.

    Returns:
        The outcome: completed, interrupted by a signal after the update that it came in, or
        failed because it has diverged; nothing is saved then.
    """
    shape = next(iter(data.values()))
    recorder = _Recorder(config, workdir, data)
    started = time.process_time()
    events: queue.SimpleQueue[Interrupt] = queue.SimpleQueue()

    def on_step(*step: Any) -> None:
        recorder.on_step(*step)
        if not events.empty():
            raise _InterruptedError

    try:
        with interrupts_to(events):
            state = one_loop.train(config, data, on_step, recorder.on_scored)
    except _InterruptedError:
        interrupt = events.get()
        return Outcome(
            "interrupted",
            message=f"stopped by {interrupt.name}",
            signal=interrupt.signal,
            cpu_seconds=time.process_time() - started,
        )
    except DivergedError as error:
        cpu_seconds = time.process_time() - started
        return Outcome("failed", message=str(error), cpu_seconds=cpu_seconds, diverged=error.step)
    finally:
        recorder.close()
    checkpointer = checkpoints.Checkpointer(
        workdir / "checkpoints", classes=class_meaning.of_head(config, shape)
    )
    checkpointer.save(config.steps, state)
    checkpointer.close()
    return Outcome("completed", cpu_seconds=time.process_time() - started)


class _InterruptedError(Exception):
    """A signal asked for the end."""


class _Recorder:
    """Writes what the learner, the evaluator and the run loop nodes would write."""

    def __init__(self, config: ExperimentConfig, workdir: Any, data: Mapping[str, shapes.DataShape]) -> None:
        self._config = config
        self._learner = MetricsWriter(workdir, "learner")
        self._evaluators = {
            name: (
                MetricsWriter(workdir, f"evaluator-{name}"),
                evaluators.in_run(
                    config, name, data, tally.Tally(workdir, f"evaluator-{name}", kind="evaluation")
                ),
            )
            for name in config.evaluation.evaluators
        }
        self._record = ExampleRecorder(workdir, config.scored) if config.record_examples else None
        names = {name: data[name].class_names for name in config.data_sets}
        self._selected = selected.Selected(workdir, names)
        self._scores = {name: _Scores(workdir, name, config, names[name]) for name in config.data_sets}
        self._step = 0
        self._since = time.monotonic()
        self._losses: list[Mapping[str, jax.Array]] = []
        self._corrupted: list[float] = []
        self._repeated: list[float] = []

    def on_scored(self, step: int, data_set: str, batch: synchronous.Batch, scores: np.ndarray) -> None:
        self._scores[data_set].add(step, batch, scores)

    def close(self) -> None:
        if self._step:
            self._selected.write(self._step)
        for scores in self._scores.values():
            scores.save()

    def on_step(
        self,
        step: int,
        state: training.TrainState,
        metrics: Mapping[str, jax.Array],
        batches: Mapping[str, Mapping[str, np.ndarray]],
    ) -> None:
        self._step = step
        if self._record is not None:
            ids = {name: batch["id"] for name, batch in batches.items()}
            self._record(step, ids, {name: batch.get("score") for name, batch in batches.items()})
        self._losses.append(metrics)
        shares = [batches_lib.corrupted_share(batch) for batch in batches.values()]
        self._corrupted += [share for share in shares if share is not None]
        taken = {name: _Taken(batch) for name, batch in batches.items()}
        self._repeated += self._selected.add(taken).values()
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._write(step)
        if step % self._config.evaluation.every == 0 or step == self._config.steps:
            divergence.check_state(step, state)
            began = time.monotonic()
            for name, (writer, measure) in self._evaluators.items():
                per_class.write_measured(writer, name, step, measure(state.variables()["learner"]))
            # A learner does not wait for evaluators.
            self._since += time.monotonic() - began

    def _write(self, step: int) -> None:
        interval = jax.device_get(self._losses)
        line = {name: float(np.mean([metrics[name] for metrics in interval])) for name in interval[0]}
        line["train/examples"] = len(interval) * self._config.batch_size
        line["train/data_wait_seconds"] = 0.0
        line["train/step_seconds"] = time.monotonic() - self._since
        for name, shares in (("corrupted", self._corrupted), ("repeated", self._repeated)):
            if shares:
                line[f"selection/{name}_fraction"] = float(np.mean(shares))
        self._learner.write(step, line)
        self._losses, self._corrupted, self._repeated, self._since = [], [], [], time.monotonic()


class _Taken:
    """A sub-batch as `selected.Selected` reads it."""

    def __init__(self, batch: Mapping[str, np.ndarray]) -> None:
        self.ids, self.labels, self.true_labels = (
            batch["id"],
            batch.get("label"),
            batch.get("clean_label"),
        )


class _Scores:
    """What a data set's run loop leaves of its scores."""

    def __init__(
        self, workdir: Any, data_set: str, config: ExperimentConfig, class_names: Sequence[str] | None
    ) -> None:
        self._make = functools.partial(MetricsWriter, workdir, f"run_loop-{data_set}-0")
        self._metrics: MetricsWriter | None = None
        self._recent: list[np.ndarray] = []
        self._extremes = None
        if data_set == next(iter(config.data_sets)):  # One file a run.
            decode = sources.make_tokenizer(config).decode if config.task == "contrastive" else None
            path = workdir / "scored_images.npz"
            self._extremes = extremes.Extremes(path, class_names or (), decode)

    def add(self, step: int, batch: synchronous.Batch, scores: np.ndarray) -> None:
        if self._extremes is not None:
            self._extremes.add({**batch, "score": scores.astype(np.float32)}, np.isfinite(scores))
        self._recent.append(scores)
        if len(self._recent) == run_loop.LOG_EVERY:
            self._metrics = self._metrics or self._make()
            self._metrics.write(step, score_summary.summary(np.concatenate(self._recent)))
            self._recent = []

    def save(self) -> None:
        if self._extremes is not None:
            self._extremes.save()
