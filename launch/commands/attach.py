"""An evaluator that joins an experiment from outside, while it runs or after its end.

The run directory says all that it takes: `config.json` which model is trained,
`endpoints.json` where the learner is, `result.json` that the run is over.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from classact import calls, user_code
from classact.calls import keys
from classact.data import source, specs
from classact.experiments.config import NAME, ConfigError, EvaluatorConfig, ExperimentConfig, require
from classact.experiments.resolution import resolve
from classact.launch.assembly import joined_devices, rpc
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
from classact.launch.commands import isolation
from classact.models import registry
from classact.nodes import checkpoints, divergence, errors, evaluator
from classact.nodes.metrics import MetricsWriter

# How long a call may take beyond what it was asked to wait.
_CALL_SECONDS = 20.0
# How long the learner may be silent before it counts as gone.
SILENT_SECONDS = 120.0


class AttachError(ValueError):
    """A directory that holds no experiment to join, or one that cannot be reached."""


class EndedError(RuntimeError):
    """The experiment has ended, or this process was asked to stop."""


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
        AttachError: if the directory holds no experiment, that has an evaluator of
            this name, is in a network that this process is not in, or has ended without a checkpoint.
        ConfigError: for a kind that the experiment's task does not have.
        source.DataError: if the data cannot be opened, lack what the kind needs, or have
            classes that the experiment has not learned.
    """
    require(bool(NAME.fullmatch(name)), "name", name, "named by a-z, 0-9 and _")
    config = read_config(workdir)
    if not has_ended(workdir):
        check_network(workdir, read_fields(workdir))
    if name in config.evaluation.evaluators:
        raise AttachError(
            f"name={name!r}: the experiment has an evaluator of that name itself, choose another"
        )
    if has_ended(workdir) and checkpoints.latest_step(workdir / "checkpoints") is None:
        raise AttachError(f"{workdir}: the run has ended without a checkpoint to evaluate")
    first = next(iter(config.data_sets.values())).train_data
    given = own.data
    own = dataclasses.replace(own, data=given or config.eval_data or first)
    started = read_fields(workdir).get("started")
    # Checked as one of the experiment's own.
    evaluation = dataclasses.replace(config.evaluation, evaluators={name: own})
    config = dataclasses.replace(config, evaluation=evaluation)
    opened = sources.open_eval_source(config, own)
    changed = "" if given else identity.change_of_evaluated(started, own.data, read_config(workdir), opened)
    if changed:
        raise AttachError(
            f"{workdir}: {own.data} is not what the run evaluates on: {changed}; name the data by --data"
        )
    trained_on = identity.measures_on_training_data(config, own.data, opened, started)
    shape = shapes.data_shape(config, opened)
    if config.task == "classification":
        shape = class_meaning.as_learned(shape, workdir)
    said = FirstLines()
    joined_devices.keep_off(said)
    classifier = networks.classifier(config.learner, config, shape)
    return Attached(
        workdir,
        name,
        every or config.evaluation.every,
        evaluators.make_measure(config, own, shape, said, on_training_data=trained_on),
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
        AttachError: if the learner is silent for two minutes although the run has
            no result.
        source.DataError: if the learner's parameters do not fit the evaluator's data.
        checkpoints.CheckpointError: if the run has ended without a readable checkpoint.
        DivergedError: if the learner's parameters are not finite; nothing of them is written.
    """
    written: _Written | None = None
    measure = _checked(attached)
    if not has_ended(attached.workdir):
        written = _Written(attached, report)
        learner = Learner(attached.workdir, stop)
        with contextlib.suppress(EndedError):
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
        written.write(step, {f"eval/{attached.name}/{key}": value for key, value in values.items()})


class _Written(MetricsWriter):
    """The evaluator's metrics, which the user sees as well."""

    def __init__(self, attached: Attached, report: Callable[[str], None]) -> None:
        super().__init__(attached.workdir, f"evaluator-{attached.name}")
        self._report = report
        self.step: int | None = None

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        super().write(step, metrics)
        self.step = step
        named = {name.split("/")[-1]: value for name, value in metrics.items()}
        where = " | training data" if named.pop(evaluators.TRAINING_DATA, 0) else ""
        values = " | ".join(f"{name} {value:.4g}" for name, value in named.items())
        self._report(f"step {step:,} | {values}{where}")


class Learner:
    """The learner of a running experiment; its calls end when the experiment does."""

    def __init__(self, workdir: pathlib.Path, stop: threading.Event) -> None:
        """Takes the run directory, and what ends a wait for a learner that is silent."""
        self._workdir = workdir
        self._stop = stop
        self._client: rpc.LearnerClient | None = None

    def get_parameters(
        self, names: Sequence[str], newer_than: int, timeout: float, follow: bool = False
    ) -> tuple[int, bool, dict[str, bytes]] | None:
        """See `Learner.get_parameters`; asks again for two minutes where nobody answers.

        Raises:
            EndedError: if nobody answers and the run has ended, or `stop` is set.
            AttachError: if nobody answers for two minutes.
        """
        return self._ask(timeout, lambda client: client.get_parameters(names, newer_than, timeout, follow))

    def get_step(self) -> int:
        """See `Learner.get_step`; asks again, and raises, as `get_parameters`."""
        return self._ask(_CALL_SECONDS, lambda client: client.get_step())

    def get_clock(self, data_set: str, shard: int) -> str:
        """See `Learner.get_clock`; asks once.

        Raises:
            RuntimeError, OSError: if nobody answers.
        """
        try:
            return self._connected(_CALL_SECONDS).get_clock(data_set, shard)
        except rpc.RpcError:
            # As in `_ask`: an actor whose models never change asks for nothing else.
            self._client = None
            raise

    def _ask(self, timeout: float, ask: Callable[[rpc.LearnerClient], Any]) -> Any:
        silent_since = time.monotonic()
        while True:
            try:
                return ask(self._connected(timeout))
            except (rpc.RpcError, FileNotFoundError) as error:
                if self._stop.is_set() or has_ended(self._workdir):
                    raise EndedError("the experiment has ended") from None
                if time.monotonic() - silent_since > SILENT_SECONDS:
                    raise AttachError(f"{silence(self._workdir)}: {str(error).splitlines()[0]}") from None
            # It may have been started again at another address.
            self._client = None
            self._stop.wait(1.0)

    def report_evaluation(self, evaluator: str, step: int) -> None:
        """Tells nobody: the experiment does not wait for an evaluator that joined it."""

    def _connected(self, timeout: float) -> rpc.LearnerClient:
        # Another thread may forget it meanwhile.
        client = self._client
        if client is None:
            # Of several hosts the first one answers; behind it is where they find each other.
            address, *_ = json.loads((self._workdir / "endpoints.json").read_text())["learner"]
            client = rpc.LearnerClient(
                calls.Client(address, _keys(self._workdir, address), timeout=timeout + _CALL_SECONDS),
                self._stop,
            )
            self._client = client
        return client


def greets(workdir: pathlib.Path, address: str, timeout: float) -> bool:
    """Whether a node of a run is there, at its address; blocks for `timeout` seconds at most.

    Raises:
        AttachError: if the run's keys cannot be used.
    """
    try:
        return calls.Client(address, _keys(workdir, address)).greets(timeout)
    except OSError:  # The keys go with the run.
        return False


def _keys(workdir: pathlib.Path, address: str) -> calls.Keys | None:
    try:
        return keys.for_address(address, workdir)
    except (PermissionError, ValueError) as error:
        raise AttachError(f"{workdir}: the run's keys cannot be used: {error}") from None


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


def silence(workdir: pathlib.Path) -> str:
    """What is said of an experiment whose learner is gone."""
    return f"{workdir}: the learner did not answer for {SILENT_SECONDS:.0f} s, and the run has no result.json"


def has_ended(workdir: pathlib.Path) -> bool:
    """Whether a run has its result."""
    return (workdir / "result.json").exists()


def check_network(workdir: pathlib.Path, fields: Mapping[str, Any]) -> None:
    """Checks that this process is in the network of a run that was given one of its own.

    Args:
        workdir: the run directory.
        fields: of its `config.json`.

    Raises:
        AttachError: if it is not; it has the command that is.
    """
    started = fields.get("started")
    if not isinstance(started, dict) or started.get("isolated") is None:
        return
    try:
        command = isolation.way_in(started["isolated"])
    except (KeyError, TypeError, ValueError):
        raise AttachError(f"{workdir / 'config.json'} is of another version of classact") from None
    if command:
        raise AttachError(
            f"{workdir}: the run was started with --isolate, and is reached from its own network alone: "
            f"on {started.get('host')}, put {command} before the command"
        )


def read_fields(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads all that a run's `config.json` holds.

    Raises:
        AttachError: if the directory is no run's.
    """
    path = workdir / "config.json"
    try:
        fields = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise AttachError(
            f"workdir={str(workdir)!r} is no run directory: it has no config.json, "
            "which `classact train` writes"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise AttachError(f"{path} cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise AttachError(f"{path} is no run's configuration: name the --workdir of a `classact train`")
    return fields


def read_config(workdir: pathlib.Path) -> ExperimentConfig:
    """Reads the configuration of a run.

    Raises:
        AttachError: if the directory is no run's, or one of another version, or if it names code
            of the user's that is not here.
    """
    fields = read_fields(workdir)
    known = {field.name for field in dataclasses.fields(ExperimentConfig)}
    # Retired: it changed nothing but the rounding of older versions.
    if isinstance(fields.get("data_sets"), dict):
        for data_set in fields["data_sets"].values():
            data_set.pop("score_shift", None)
    try:
        return resolve({name: value for name, value in fields.items() if name in known})
    except ConfigError as error:
        if any(isinstance(behind, user_code.UserCodeError) for behind in errors.chain(error)):
            started = fields.get("started")
            directory = started.get("directory") if isinstance(started, dict) else None
            raise AttachError(f"{workdir}: {error}{elsewhere(directory)}") from None
        raise AttachError(f"{workdir / 'config.json'} is of another version of classact: {error}") from None


def elsewhere(directory: str | None) -> str:
    """What is added to an error that may come of where this process was started, and not the experiment."""
    known = directory is not None and directory != os.getcwd()
    return f"; the experiment was started in {directory}" if known else ""
