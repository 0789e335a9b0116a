"""`--launch=synchronous`: Algorithm 1 or 2 in one process, without nodes or replay.

The oracle of the asynchronous system: it leaves the same files, so that
`classact compare` shows what asynchrony costs.
"""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from classact.data.stream import IIDStream
from classact.experiments.config import ExperimentConfig
from classact.launch import parts
from classact.launch.outcome import Outcome
from classact.nodes import checkpoints, evaluator, synchronous, training
from classact.nodes.metrics import MetricsWriter
from classact.selection import policies


def run_synchronous(
    config: ExperimentConfig, workdir: Any, data: parts.DataShape, evaluator_name: str
) -> Outcome:
    """Trains to the last step in this process; blocks until then.

    Args:
        config: the resolved configuration.
        workdir: the run directory.
        data: shapes of the training data.
        evaluator_name: under which the evaluation's metrics are written.

    Returns:
        The outcome, always completed; Ctrl-C raises as in any program.
    """
    policy = policies.get(config.policy)
    models = parts.role_models(config, data)
    recorder = _Recorder(config, workdir, data, evaluator_name)
    started = time.process_time()
    state = synchronous.train(
        policy,
        parts.make_task(config),
        parts.trained_models(config, data),
        {role: (models[role], variables) for role, variables in parts.fixed_variables(config).items()},
        # The reference of Algorithm 2 learns from the whole of what is scored.
        IIDStream(parts.open_train_source(config), config.super_batch_size, config.seed),
        batch_size=config.batch_size,
        temperature=config.temperature,
        steps=config.steps,
        seed=config.seed,
        on_step=recorder.on_step,
    )
    checkpointer = checkpoints.Checkpointer(workdir / "checkpoints")
    checkpointer.save(config.steps, state)
    checkpointer.close()
    return Outcome("completed", cpu_seconds=time.process_time() - started)


class _Recorder:
    """Writes the metrics that the learner and the evaluator nodes would write."""

    def __init__(self, config: ExperimentConfig, workdir: Any, data: parts.DataShape, name: str) -> None:
        self._config = config
        self._name = name
        self._learner = MetricsWriter(workdir, "learner")
        self._evaluator = MetricsWriter(workdir, f"evaluator-{name}")
        self._measure = evaluator.classification_accuracy(
            parts.make_models(config, data)["learner"],
            parts.make_task(config),
            evaluator.whole_data_set(parts.open_eval_source(config), config.evaluation.batch_size),
        )
        self._since = time.monotonic()
        self._losses: list[Mapping[str, jax.Array]] = []
        self._corrupted: list[float] = []

    def on_step(
        self,
        step: int,
        state: training.TrainState,
        metrics: Mapping[str, jax.Array],
        batch: Mapping[str, np.ndarray],
    ) -> None:
        self._losses.append(metrics)
        if "clean_label" in batch:
            self._corrupted.append(float(np.mean(batch["label"] != batch["clean_label"])))
        if step % self._config.log_every == 0:
            self._write(step)
        if step % self._config.evaluation.every == 0 or step == self._config.steps:
            values = self._measure(state.variables()["learner"])
            self._evaluator.write(step, {f"eval/{self._name}/{key}": value for key, value in values.items()})

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
