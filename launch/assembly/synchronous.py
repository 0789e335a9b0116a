"""`--launch=synchronous`: Algorithm 1 or 2 in one process, without nodes or replay.

The oracle of the asynchronous system: it leaves the same files, so that
`classact compare` shows what asynchrony costs.
"""

import queue
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from classact.experiments.config import ExperimentConfig
from classact.launch.assembly.parts import (
    class_meaning,
    evaluators,
    one_loop,
    shapes,
)
from classact.launch.engines.interrupts import Interrupt, interrupts_to
from classact.launch.engines.outcome import Outcome
from classact.nodes import batches as batches_lib
from classact.nodes import checkpoints, divergence, training
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
            state = one_loop.train(config, data, on_step)
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
    checkpointer = checkpoints.Checkpointer(
        workdir / "checkpoints", classes=class_meaning.of_head(config, shape)
    )
    checkpointer.save(config.steps, state)
    checkpointer.close()
    return Outcome("completed", cpu_seconds=time.process_time() - started)


class _InterruptedError(Exception):
    """A signal asked for the end."""


class _Recorder:
    """Writes the metrics that the learner and the evaluator nodes would write."""

    def __init__(self, config: ExperimentConfig, workdir: Any, data: Mapping[str, shapes.DataShape]) -> None:
        self._config = config
        self._learner = MetricsWriter(workdir, "learner")
        self._evaluators = {
            name: (MetricsWriter(workdir, f"evaluator-{name}"), evaluators.in_run(config, name, data))
            for name in config.evaluation.evaluators
        }
        self._record = ExampleRecorder(workdir) if config.record_examples else None
        self._since = time.monotonic()
        self._losses: list[Mapping[str, jax.Array]] = []
        self._corrupted: list[float] = []

    def on_step(
        self,
        step: int,
        state: training.TrainState,
        metrics: Mapping[str, jax.Array],
        batches: Mapping[str, Mapping[str, np.ndarray]],
    ) -> None:
        if self._record is not None:
            self._record(step, {name: batch["id"] for name, batch in batches.items()})
        self._losses.append(metrics)
        shares = [batches_lib.corrupted_share(batch) for batch in batches.values()]
        self._corrupted += [share for share in shares if share is not None]
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._write(step)
        if step % self._config.evaluation.every == 0 or step == self._config.steps:
            divergence.check_state(step, state)
            for name, (writer, measure) in self._evaluators.items():
                values = measure(state.variables()["learner"])
                writer.write(step, {f"eval/{name}/{key}": value for key, value in values.items()})

    def _write(self, step: int) -> None:
        interval = jax.device_get(self._losses)
        line = {name: float(np.mean([metrics[name] for metrics in interval])) for name in interval[0]}
        line["train/examples"] = len(interval) * self._config.batch_size
        line["train/data_wait_seconds"] = 0.0
        line["train/step_seconds"] = time.monotonic() - self._since
        if self._corrupted:
            line["selection/corrupted_fraction"] = float(np.mean(self._corrupted))
        self._learner.write(step, line)
        self._losses, self._corrupted, self._since = [], [], time.monotonic()
