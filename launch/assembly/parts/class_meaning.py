"""What the labels of a run mean: agreed on before it starts, and read by whoever meets it later.

It is recorded for each data set in `config.json` and with each checkpoint. `data.classes`
says what is done with it. A contrastive task has no classes of its own: nothing here
concerns it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from classact.data import classes
from classact.data.classes import Classes
from classact.data.source import DataError
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.models import registry
from classact.nodes import checkpoints
from classact.weights import as_run, opening

if TYPE_CHECKING:
    from classact.launch.assembly.parts.shapes import DataShape


def of_head(config: ExperimentConfig, data: "DataShape") -> Classes | None:
    """What the outputs of a run's models mean; None if they are no classes."""
    return data.classes if config.task == "classification" else None


def recorded(run: pathlib.Path | str) -> Classes | None:
    """What a run of a classification says of its labels, in its checkpoint or in `config.json`.

    A run of an older version says their number alone, or nothing: then it is None. Of a checkpoint of
    another tool it is what its head says.
    """
    if opening.is_outside(str(run)):
        described = as_run.fields(str(run))["started"]["data"].values()
        return next(filter(None, map(Classes.from_json, described)), None)
    run = pathlib.Path(run)
    found = checkpoints.load_classes(run / "checkpoints")
    if found is not None:
        return found
    try:
        # All data sets of a run have the run's classes.
        described = json.loads((run / "config.json").read_text())["started"]["data"].values()
    # Whoever cannot go on without the file reads it too, and says what is wrong with it.
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return next(filter(None, map(Classes.from_json, described)), None)


def agreed(
    config: ExperimentConfig,
    data: "Mapping[str, DataShape]",
    workdir: pathlib.Path | None,
    said: FirstLines,
) -> "dict[str, DataShape]":
    """The data sets with the classes of the run, to which their labels are mapped.

    These are those of a run that goes on; else those of the data set that has most
    classes, of several the first. The others may lack some.

    Args:
        config: of the run.
        data: the data sets by name, as they were opened.
        workdir: of a run that goes on; None if one begins.
        said: is told where classes are lacking, or only numbers can be compared.

    Raises:
        source.DataError: if a data set has classes that the run does not have.
        ConfigError: if the run that goes on has learned other classes.
    """
    if config.task != "classification":
        return dict(data)
    widest = max(data.values(), key=lambda shape: (shape.class_names is not None, shape.num_classes))
    run, whose = widest.classes, widest.name
    if workdir is not None:
        run, whose = _continued(widest, workdir, said), f"the run in {workdir}"
    return {name: mapped(config, shape, run, whose, said) for name, shape in data.items()}


def mapped(
    config: ExperimentConfig, shape: "DataShape", run: Classes, whose: str, said: FirstLines
) -> "DataShape":
    """The shape of a data set whose labels are mapped to the classes of a run.

    `parts.open_train_source` maps the labels themselves, in every node. Where a contrastive
    task makes captions of the names, these must be the same and nothing is mapped.

    Args:
        config: of the run.
        shape: as the data set was opened.
        run: what labels mean in the run. The data set may lack some of its classes.
        whose: what knows them, for messages.
        said: is told where classes are lacking, or only numbers can be compared.

    Raises:
        source.DataError: if the data set has other classes; names the first.
    """
    contrastive, nameless = config.task != "classification", None in (shape.class_names, run.names)
    if contrastive or nameless:
        if not classes.same(shape.classes, run):
            hint = "" if contrastive else "; without names the numbers must be equal (npz:PATH?classes=K)"
            raise DataError(
                f"{shape.name}: {classes.difference(shape.classes, 'here', run, f'in {whose}')}{hint}"
            )
        if contrastive:
            return shape
    classes.numbers(shape.classes, run, shape.name, whose)
    _remark(said, shape.classes, run, shape.name, whose)
    return dataclasses.replace(_with_classes(shape, run), classes_of=whose)


def _continued(widest: "DataShape", workdir: pathlib.Path, said: FirstLines) -> Classes:
    """The classes of a run that goes on, which must have those of its data and no others."""
    ours, theirs = widest.classes, recorded(workdir)
    if theirs is not None and not classes.same(ours, theirs):
        raise ConfigError(
            f"workdir={str(workdir)!r} holds a run with other classes than {widest.name} has now: "
            f"{classes.difference(theirs, 'in the run', ours, 'now')}; "
            "give it the data that it had, or name another workdir"
        )
    if theirs is None or theirs.names is None:
        _remark(said, ours, Classes(ours.number), widest.name, f"the run in {workdir}")
        return ours
    return theirs


def as_learned(data: "DataShape", run: pathlib.Path) -> "DataShape":
    """The shape of data to measure on, with the classes that a run has learned, where it says them."""
    theirs = recorded(run) or Classes(data.num_classes)
    return dataclasses.replace(_with_classes(data, theirs), name=f"the run in {run}")


def check_reference(field: str, run: pathlib.Path | str, data: "DataShape", said: FirstLines | None) -> None:
    """Checks that a reference has learned the classes of a data set, in whatever order.

    Args:
        field: what names the reference, for messages.
        run: its directory, or the spec of a checkpoint.
        data: the data set, with the classes of this run.
        said: is told where classes are lacking, or only numbers can be compared.

    Raises:
        ConfigError: if it has learned others; names the first.
    """
    theirs = recorded(run)
    if theirs is not None and not classes.same(data.classes, theirs):
        raise ConfigError(
            f"{field}: it has learned other classes than those of {data.name}: "
            f"{classes.difference(theirs, 'in the reference', data.classes, 'in the data')}"
        )
    try:
        _reference_order(run, data.classes)
    except DataError as error:
        raise ConfigError(f"{field}: {error}") from None
    if said is not None:
        theirs = theirs or Classes(data.num_classes)
        _remark(said, data.classes, theirs, data.name, f"the reference in {run}")


def in_order_of_run(model: registry.Model, reference: pathlib.Path | str, run: Classes) -> registry.Model:
    """A reference's model with its logits in the order of this run's classes.

    Args:
        model: the reference's.
        reference: its run directory, or the spec of a checkpoint.
        run: what the labels of this run mean.
    """
    order = _reference_order(reference, run)
    if order is None:
        return model

    def apply(
        variables: registry.Variables, batch: Mapping[str, Any], *, train: bool, rng: Any = None
    ) -> tuple[registry.Outputs, Any]:
        outputs, state = model.apply(variables, batch, train=train, rng=rng)
        return {**outputs, "logits": outputs["logits"][..., order]}, state

    return dataclasses.replace(model, apply=apply)


def _reference_order(reference: pathlib.Path | str, run: Classes) -> np.ndarray | None:
    """For each of the run's classes its number in the reference; None if it is the same."""
    theirs = recorded(reference)
    return None if theirs is None else classes.numbers(run, theirs, "this run", "the reference")


def _with_classes(shape: "DataShape", known: Classes) -> "DataShape":
    return dataclasses.replace(shape, num_classes=known.number, class_names=known.names)


def _remark(said: FirstLines, theirs: Classes, known: Classes, source: str, whose: str) -> None:
    line = classes.remark(theirs, known, source, whose)
    if line:
        said.say(line)
