"""An evaluator that joins an experiment from outside, while it runs or after its end.

The run directory says all that it takes: `config.json` which model is trained,
`endpoints.json` where the learner is, `result.json` that the run is over.
"""

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from classact.data import source, specs
from classact.experiments.config import NAME, EvaluatorConfig, require
from classact.launch.assembly import joined_devices, joined_learner, joined_run
from classact.launch.assembly.parts import (
    class_meaning,
    evaluators,
    fitting,
    identity,
    networks,
    shapes,
    sources,
)
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.models import registry
from classact.nodes import checkpoints, divergence, evaluator, per_class, tally
from classact.nodes import mesh as mesh_lib
from classact.nodes.metrics import MetricsWriter


@dataclasses.dataclass(frozen=True)
class Attached:
    """An evaluator that has passed every check that can be made before it asks anybody.

    Attributes:
        workdir: the run directory.
        name: of the evaluator.
        every: updates between two evaluations.
        measure: what it computes from the learner's variables.
        model: the learner's network.
        misfit: how variables differ from that network's, see `fitting.misfit`.
        first_lines: what the user is told before anything is measured.
    """

    workdir: pathlib.Path
    name: str
    every: int
    measure: evaluator.Measure
    model: registry.Model
    misfit: Callable[[Mapping[str, Any]], str]
    first_lines: Sequence[str] = ()


@specs.opened_once()
def prepare(workdir: pathlib.Path, name: str, own: EvaluatorConfig, every: int) -> Attached:
    """Checks an evaluator against the experiment, and opens its data.

    The data that the experiment trains on are not opened: they may be elsewhere.

    Args:
        workdir: the run directory.
        name: metrics are `eval/<name>/…` in `metrics/evaluator-<name>.jsonl`.
        own: its kind and options; without data, those of the experiment.
        every: updates between two evaluations; 0: as the experiment's own.

    Raises:
        joined_run.AttachError: if the directory holds no experiment, that has an evaluator of
            this name, is in a network that this process is not in, or has ended without a checkpoint.
        ConfigError: for a kind that the experiment's task does not have.
        source.DataError: if the data cannot be opened, lack what the kind needs, or have
            classes that the experiment has not learned.
    """
    require(bool(NAME.fullmatch(name)), "name", name, "named by a-z, 0-9 and _")
    run = config = joined_run.read_config(workdir)
    if not joined_run.has_ended(workdir):
        joined_run.check_network(workdir, joined_run.read_fields(workdir))
    if name in config.evaluation.evaluators:
        raise joined_run.AttachError(
            f"name={name!r}: the experiment has an evaluator of that name itself, choose another"
        )
    if joined_run.has_ended(workdir) and checkpoints.latest_step(workdir / "checkpoints") is None:
        raise joined_run.AttachError(f"{workdir}: the run has ended without a checkpoint to evaluate")
    first = next(iter(config.data_sets.values())).train_data
    given = own.data
    own = dataclasses.replace(own, data=given or config.eval_data or first)
    started = joined_run.read_fields(workdir).get("started")
    # Checked as one of the experiment's own.
    evaluation = dataclasses.replace(config.evaluation, evaluators={name: own})
    config = dataclasses.replace(config, evaluation=evaluation)
    opened = sources.open_eval_source(config, own)
    changed = "" if given else identity.change_of_evaluated(started, own.data, run, opened)
    if changed:
        raise joined_run.AttachError(
            f"{workdir}: {own.data} is not what the run evaluates on: {changed}; name the data by --data"
        )
    trained_on = identity.measures_on_training_data(config, own.data, opened, started)
    shape = shapes.data_shape(config, opened)
    if config.task == "classification":
        shape = class_meaning.as_learned(shape, workdir)
    said = FirstLines()
    # One that has ended has no GPUs any more.
    if not joined_run.has_ended(workdir):
        joined_devices.keep_off(said)
    classifier = networks.classifier(config, shape)
    return Attached(
        workdir,
        name,
        every or config.evaluation.every,
        evaluators.make_measure(
            config,
            own,
            shape,
            said,
            on_training_data=trained_on,
            counts=tally.Tally(workdir, f"evaluator-{name}", kind="evaluation", joined=True),
            mesh=mesh_lib.local_mesh(),
        ),
        classifier(shape.num_classes),
        lambda variables: fitting.misfit(variables, classifier, shape.num_classes),
        said.lines(),
    )


def evaluate(attached: Attached, stop: threading.Event, report: Callable[[str], None]) -> None:
    """Evaluates until the experiment ends, and its last checkpoint if it has.

    The learner never waits for it: parameters are copied when they are asked for,
    and an evaluator that is slow, stopped or killed only misses some.

    Args:
        attached: of `prepare`.
        stop: ends it, within an evaluation and half a minute.
        report: takes a line for the user after each evaluation.

    Raises:
        joined_run.AttachError: if the learner is silent for three minutes although the run has
            no result.
        source.DataError: if the learner's parameters do not fit the evaluator's data.
        checkpoints.CheckpointError: if the run has ended without a readable checkpoint.
        DivergedError: if the learner's parameters are not finite; nothing of them is written.
    """
    written: _Written | None = None
    measure = _checked(attached)
    if not joined_run.has_ended(attached.workdir):
        written = _Written(attached, report)
        learner = joined_learner.Learner(attached.workdir, stop)
        with contextlib.suppress(joined_run.EndedError):
            evaluator.Evaluator(attached.name, measure, learner, attached.every, stop, written).run()
            # It has had the learner's last parameters, whose checkpoint may not be written yet.
            return
    if stop.is_set():
        return
    # The run ended while an older version was evaluated, or before all this.
    directory = attached.workdir / "checkpoints"
    variables = checkpoints.load_model(directory)
    step = checkpoints.latest_step(directory)
    seen = None if written is None else written.step
    # An interrupted run's checkpoint may be older than what was evaluated.
    if step is not None and (seen is None or step > seen):
        divergence.check_measured(step, variables)
        values = measure(variables)
        # Not before: a checkpoint that cannot be measured leaves nothing in the directory.
        written = written or _Written(attached, report)
        per_class.write_measured(written, attached.name, step, values)


class _Written(MetricsWriter):
    """The evaluator's metrics, which the user sees as well."""

    def __init__(self, attached: Attached, report: Callable[[str], None]) -> None:
        super().__init__(attached.workdir, f"evaluator-{attached.name}")
        self._report = report
        self.step: int | None = None

    def write(self, step: int, metrics: Mapping[str, Any], at: float | None = None) -> None:
        super().write(step, metrics, at)
        self.step = step
        named = {name.split("/")[-1]: value for name, value in metrics.items()}
        where = " | training data" if named.pop(evaluators.TRAINING_DATA, 0) else ""
        values = " | ".join(f"{name} {value:.4g}" for name, value in named.items())
        self._report(f"step {step:,} | {values}{where}")


def _checked(attached: Attached) -> evaluator.Measure:
    """Measures only parameters that the evaluator's model can take."""

    def measure(variables: Any) -> Mapping[str, float]:
        difference = attached.misfit(variables)
        if difference:
            raise source.DataError(
                f"{attached.workdir}: its learner does not fit the data to measure on, which need images and "
                f"classes as it was trained on: {difference}"
            )
        return attached.measure(variables)

    return measure
