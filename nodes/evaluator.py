"""The evaluator: pulls parameters and measures them on held-out data (A.6)."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from classact.models import registry
from classact.nodes import activity, divergence, parameters, per_class, read_ahead
from classact.nodes import mesh as mesh_lib
from classact.nodes import metrics as metrics_lib
from classact.selection import losses

Variables = Any
# measure(variables) -> {metric: value}, without the evaluator's prefix; maybe `per_class.Measured`.
Measure = Callable[[Variables], Mapping[str, float]]


class LearnerClient(parameters.ParameterSource, Protocol):
    """What an evaluator needs of the learner."""

    def report_evaluation(self, evaluator: str, step: int) -> None:
        """Tells the learner that the metrics of a step are written."""


class Evaluator:
    """Measures the learner every so many updates, and once more at its end.

    It asks for the first parameters at or after the next multiple of `every`; if
    it is slower than the learner it skips multiples, and the learner never waits
    for it before its last step.
    """

    def __init__(
        self,
        name: str,
        measure: Measure,
        learner: LearnerClient,
        every: int,
        stop: threading.Event,
        metrics: metrics_lib.MetricsWriter,
        poll_seconds: float = 5.0,
        evaluated: int = 0,
    ) -> None:
        """Builds the evaluator; `run` starts it.

        Args:
            name: of the evaluator; its metrics are `eval/<name>/<metric>`.
            measure: of `classification_accuracy`, for instance.
            learner: where the parameters come from.
            every: updates between two evaluations.
            stop: ends `run`, within `poll_seconds` and one evaluation.
            metrics: where to write.
            poll_seconds: how long one request to the learner may wait.
            evaluated: the last step that an earlier process has measured.
        """
        self._name = name
        self._measure = measure
        self._learner = learner
        self._every = every
        self._stop = stop
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._evaluated = evaluated

    def run(self) -> None:
        """Evaluates until the learner has finished or the stop signal.

        Raises:
            DivergedError: if the parameters to measure are not finite.
        """
        with activity.part(f"evaluator {self._name}"):
            self._run()

    def _run(self) -> None:
        evaluated = self._evaluated
        while not self._stop.is_set():
            due = (evaluated // self._every + 1) * self._every
            response = self._ask(due - 1)
            if response is None:
                # A learner that went back to a checkpoint is measured again from there.
                with activity.waiting("the learner"):
                    step = self._learner.get_step()
                evaluated = min(evaluated, step) if step >= 0 else evaluated
                continue
            step, finished, payload = response
            if not payload and finished and step > evaluated:
                # The last step is no multiple: ask for it whatever its number.
                response = self._ask(evaluated)
                if response is None:
                    continue
                step, finished, payload = response
            if payload:
                variables = parameters.decode(payload["learner"])
                divergence.check_measured(step, variables)
                values = self._measure(variables)
                per_class.write_measured(self._metrics, self._name, step, values)
                evaluated = step
                activity.progressed()
            if finished:
                with activity.waiting("the learner"):
                    self._learner.report_evaluation(self._name, step)
                return

    def _ask(self, newer_than: int) -> tuple[int, bool, dict[str, memoryview]] | None:
        with activity.waiting("the learner's parameters"):
            return self._learner.get_parameters(("learner",), newer_than, self._poll_seconds)


def classification_accuracy(
    model: registry.Model,
    task: losses.Task,
    batches: Callable[[], Iterator[Mapping[str, np.ndarray]]],
    class_names: Sequence[str] | None = None,
    mesh: Mesh | None = None,
) -> Measure:
    """Builds `measure` for a labelled data set: top-1 accuracy, of each class too, and mean loss.

    Args:
        model: the learner's network.
        task: gives the loss per example.
        batches: gives the whole data set once, in batches of one size (the last
            may be smaller; it is padded).
        class_names: by label; None if unknown.
        mesh: the devices that share each batch; None: one.

    Returns:
        A function of variables that gives `top1` (share of examples), `loss`, and what
        `per_class.measured` makes of the classes.
    """

    def of_rows(variables: Variables, rows: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        outputs, _ = model.apply(variables, rows, train=False)
        weight, label = rows["weight"], rows["label"]
        correct = outputs["logits"].argmax(-1) == label
        of_classes = jnp.zeros((2, outputs["logits"].shape[-1]), jnp.float32)
        of_classes = of_classes.at[:, label].add(jnp.stack([weight, jnp.where(correct, weight, 0.0)]))
        # One row of each for every device.
        return of_classes[None], jnp.sum(task.act_loss(outputs, rows) * weight)[None]

    count = mesh_lib.by_rows(mesh, of_rows)

    def measure(variables: Variables) -> per_class.Measured:
        variables = mesh_lib.everywhere(mesh, variables)
        size = 0
        loss, totals = 0.0, np.zeros((2, 0))
        for batch in batches():
            rows = len(batch["label"])
            if not rows:
                continue
            # A source leaves out damaged examples: the first batch may be a smaller one.
            size = max(size, mesh_lib.fill_up(mesh, rows))
            weight = np.zeros(size, np.float32)
            weight[:rows] = 1.0
            padded = {
                key: np.concatenate([array, np.repeat(array[:1], size - rows, axis=0)])
                for key, array in batch.items()
                if key in ("image", "label")
            }
            of_classes, batch_loss = count(variables, {**padded, "weight": weight})
            totals = np.asarray(of_classes, np.float64).sum(axis=0) + (totals if totals.size else 0.0)
            loss += float(np.asarray(batch_loss, np.float64).sum())
        examples, correct = totals
        values = {"top1": correct.sum() / examples.sum(), "loss": loss / examples.sum()}
        return per_class.measured(values, examples, correct, class_names)

    return measure


def whole_data_set(source: Any, batch_size: int) -> Callable[[], Iterator[Mapping[str, np.ndarray]]]:
    """Gives every example of a source once per call, in batches.

    The next batches are read by a thread while one is measured, up to `read_ahead.MAX_BYTES` of them.

    Args:
        source: of `classact.data`.
        batch_size: examples per batch; the last may be smaller.
    """

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        # Never set: who stops in the middle would measure a part of the data.
        with read_ahead.ReadAhead(_Whole(source, batch_size), threading.Event()) as found:
            for batch in found:
                yield batch
                activity.progressed()

    return batches


class _Whole:
    """All examples of a source once, as a stream."""

    def __init__(self, source: Any, batch_size: int) -> None:
        self._source = source
        self._batch_size = batch_size
        # Nobody goes on in the middle.
        self.cursor: dict[str, Any] = {}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        size, end = self._batch_size, self._source.num_examples
        for start in range(0, end, size):
            yield self._source.batch(np.arange(start, min(start + size, end)))
