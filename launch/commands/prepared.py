"""A run before it starts: everything that can be checked without any process."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from classact import environments
from classact.calls import MAX_CALL_BYTES
from classact.data import captions, specs
from classact.data.augment.recipe import NONE as NO_AUGMENTATION
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig
from classact.launch.assembly import devices
from classact.launch.assembly.parts import (
    class_meaning,
    data_checks,
    evaluators,
    held_out,
    identity,
    joint_shapes,
    learning,
    networks,
    ordered,
    outside_weights,
    reference_models,
    references,
    scored,
    shapes,
    sources,
    starts,
    text_lines,
    traced,
)
from classact.launch.assembly.parts.first_lines import FirstLines, describe_source
from classact.launch.commands import resume
from classact.launch.engines import folders, isolation
from classact.launch.engines import registry as engines
from classact.launch.engines.interface import Engine
from classact.models import registry
from classact.nodes import checkpoints, opening
from classact.selection import policies


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that has passed every check that can be made before it starts."""

    config: ExperimentConfig
    workdir: pathlib.Path
    data: Mapping[str, shapes.DataShape]
    earlier: resume.Earlier | None = None
    # What the user is told before anything starts.
    first_lines: Sequence[str] = ()
    # By evaluator what `config.json` says of its data.
    evaluated: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # By field what `config.json` says of checkpoints of other tools.
    weights: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Which devices of this machine each node has.
    placement: devices.Placement = dataclasses.field(default_factory=devices.Placement)


@specs.opened_once()
def prepare(config: ExperimentConfig, workdir: pathlib.Path, engine: str) -> Prepared:
    """Checks all that can be checked before any process starts.

    Opens the data sets, shapes the models (without computing), reads the
    reference. Writes nothing.

    Args:
        config: the resolved configuration.
        workdir: the run directory; one that holds a run of the same configuration lets
            that run go on.
        engine: name of the engine that will run it, see `engines.registry`.

    Raises:
        ConfigError: for a field that cannot be run, a work directory with another run, or if the
            replay server's Python is missing here.
        source.DataError: for data that is missing, damaged or of the wrong kind.
    """
    runs = engines.get(engine)
    if runs.one_process and config.mesh.hosts > 1:
        raise ConfigError(
            f"mesh.hosts={config.mesh.hosts}: must be 1 with --launch={engine}, which is one process"
        )
    if config.mesh.hosts > 1 and isolation.is_inside() and not isolation.name_is_loopback():
        raise ConfigError(
            f"mesh.hosts={config.mesh.hosts}: with --isolate this machine's name must be an address of "
            "loopback, by a line such as '127.0.1.1 NAME' in /etc/hosts"
        )
    runs.check(config)
    if runs.has_nodes:
        try:
            environments.replay_python()
        except environments.EnvironmentMissingError as error:
            raise ConfigError(str(error)) from None
    folders.check_work_directory(workdir)
    earlier = resume.earlier(config, workdir)
    if not runs.resumes and earlier is not None and not earlier.completed:
        raise ConfigError(
            f"workdir={str(workdir)!r} holds a run, and --launch={engine} cannot go on with one: "
            "name another workdir"
        )
    said = FirstLines()
    data = {name: _checked_data_set(config, name, runs, said) for name in config.data_sets}
    data = class_meaning.agreed(config, data, None if earlier is None else workdir, said)
    shape = _common_shape(data)
    traced.check_models(config, shape)
    try:
        learning.trained_models(config, shape)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    learning.make_task(config)
    for model in networks.make_models(config, shape).values():
        _check_counted(model, config, shape)
    for name, own in config.data_sets.items():
        references.check_reference(config, own, data[name], said)
        if policies.get(own.policy).reference == "fixed" and not own.reference.scores:
            _check_counted(networks.reference(config, own, data[name]), config, data[name], own)
        traced.check_scores(config, own, data[name])
        ordered.check(config, name, own, data[name], said)
    # One that goes on from a checkpoint has started, wherever its weights came from.
    if earlier is None or checkpoints.latest_step(workdir / "checkpoints") is None:
        starts.variables_of(config, shape, said)
    for evaluator in config.evaluation.evaluators.values():
        evaluators.make_measure(config, evaluator, shape, said)
    placement = devices.place(config, runs, shape, said)
    checked = identity.check(config, workdir, data, said)
    scored.check_unchanged(config, None if earlier is None else earlier.started)
    weights = outside_weights.described(config, None if earlier is None else earlier.started)
    return Prepared(
        config, workdir.absolute(), checked.data, earlier, said.lines(), checked.evaluated, weights, placement
    )


def _check_counted(
    model: registry.Model,
    config: ExperimentConfig,
    shape: shapes.DataShape,
    reference_of: DataSetConfig | None = None,
) -> None:
    """The ledger can count what a model costs; a reference may have texts of its own length."""
    if reference_of is not None:
        found = reference_models.described(config, reference_of, shape)
        config = dataclasses.replace(config, contrastive=found.contrastive)
    try:
        networks.forward_macs(model, config, shape)
    except ValueError as error:
        raise ConfigError(f"model {model.name!r} for {shape.name} {shape.image_shape}: {error}") from None


def _checked_data_set(
    config: ExperimentConfig, name: str, engine: Engine, said: FirstLines
) -> shapes.DataShape:
    own = config.data_sets[name]
    started = time.monotonic()
    train = sources.open_train_source(config, own, images=own.carried)
    seconds = time.monotonic() - started
    for line in (*describe_source(train), *held_out.describe(config, train)):
        said.say(line)
    if own.augment != NO_AUGMENTATION:
        said.say(f"  augmented by {own.augment}")
    if seconds > opening.SLOW_SECONDS:
        said.say(f"  opening it took {seconds:.0f} s; each run loop opens it again before its first batch")
    if isinstance(train, captions.Tokenized):
        text_lines.say_what_is_cut(train, said)
    readers = own.inference.servers * own.inference.run_loops
    if train.num_examples < readers:
        raise ConfigError(
            f"inference.servers · inference.run_loops = {readers}: must be at most {train.num_examples}, "
            f"the examples of {train.name}: each run loop reads its own"
        )
    data_checks.check_labels(train, said)
    shape = joint_shapes.with_embeddings(config, own, shapes.data_shape(config, train, own.carried))
    data_checks.say_what_is_carried(own.carried, shape.sent_bytes, shape.example_bytes, said)
    # A cluster's hosts have other memory than this one.
    memory = None if engine.several_hosts else data_checks.machine_memory()
    data_checks.check_sizes(
        name, own, train, shape.example_bytes, said, sent_bytes=shape.sent_bytes,
        nodes=engine.has_nodes, memory=memory, call_bytes=MAX_CALL_BYTES if engine.has_nodes else None,
    )  # fmt: skip
    return shape


def _common_shape(data: Mapping[str, shapes.DataShape]) -> shapes.DataShape:
    """What one model can be built for; ConfigError if the data sets differ in it."""
    (first, shape), *others = data.items()
    for name, other in others:
        if shape.image_shape != other.image_shape:
            raise ConfigError(
                f"data_sets {first} and {name} differ in image_shape: "
                f"{shape.image_shape} and {other.image_shape}; one model learns from both"
            )
    return shape
