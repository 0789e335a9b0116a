"""What models start from that have weights already: read, fitted to the run's models, and checked.

Every parameter must be there, have the shape that it has here, and nothing may be left over, but
for the outputs where they mean something else, and for the positions where the image size differs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from classact.data import classes
from classact.data.classes import Classes
from classact.data.source import DataError
from classact.experiments import run_config
from classact.experiments.config import ConfigError, ExperimentConfig, ModelConfig
from classact.launch.assembly.parts import fitting, networks
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.assembly.parts.fitting import Path
from classact.launch.assembly.parts.opened_weights import Opened, open_weights
from classact.launch.assembly.parts.shapes import DataShape
from classact.weights import opening, positions

Flat = dict[Path, Any]
# What is read of another model's texts if it has some.
_OF_TEXTS = ("tokenizer", "causal")


def variables_of(
    config: ExperimentConfig, data: DataShape, said: FirstLines | None = None
) -> dict[str, Mapping[str, Any]]:
    """The weights that a run's models start from, by model, if it names any.

    What is not in them, such as a head for other classes, starts as it does in other runs.

    Args:
        config: of the run.
        data: of the first data set, with the classes of the run.
        said: is told what is left out; None: nobody is.

    Raises:
        ConfigError: if weights cannot be read or do not fit; names the first that are missing, left
            over, or of another shape.
    """
    trained = networks.make_models(config, data)
    found: dict[str, Mapping[str, Any]] = {}
    if config.learner.init:
        field = f"learner.init={config.learner.init!r}"
        opened = open_weights(field, config.learner.init)
        found["learner"] = _fitted(field, opened, config.learner, config, data, said)
    # A reference with a model of its own is no scorer.
    as_scorer = ("online",) if config.reference.model else ("online", "reference")
    like_scorer = [name for name in as_scorer if name in trained]
    if config.scorer.init and like_scorer:
        field = f"scorer.init={config.scorer.init!r}"
        opened = open_weights(field, config.scorer.init)
        fitted = _fitted(field, opened, config.scorer, config, data, said)
        found |= dict.fromkeys(like_scorer, fitted)
    return found


def _fitted(
    field: str,
    opened: Opened,
    model: ModelConfig,
    config: ExperimentConfig,
    data: DataShape,
    said: FirstLines | None,
) -> Mapping[str, Any]:
    role = field.partition(".")[0]
    opened = _at_size(field, opened, networks.image_shape(model, data, role), config)
    _check_same_function(field, opened, model, config)
    made, number = networks.by_outputs(model, config, data, role)
    ours, outputs = fitting.expected(made(number)), fitting.output_axes(made, number)
    paired = config.task == "contrastive"
    theirs = _placed(fitting.flat(opened.variables), opened.task, config.task)
    left_open: set[Path] = set()
    if opened.task != config.task:
        left_open = {path for path in ours if paired and path[:2] != ("params", "image")} | set(outputs)
        left_open -= {path for path in ours if path[0] == "state"}
        _say(said, f"{field}: of a {opened.task}; its image tower is taken, all else starts anew")
    elif not paired:
        theirs, dropped = _with_head(theirs, outputs, opened.classes, data.classes)
        dropped = "it has features alone" if opened.is_headless else dropped
        left_open = set(outputs) if dropped else set()
        if dropped:
            _say(said, f"{field}: its head is left out, and starts anew: {dropped}")
    theirs = {path: array for path, array in theirs.items() if path not in left_open}
    theirs = _with_positions(field, theirs, ours, opened, _grid(model, config, data, role), said)
    wanted = {path: leaf for path, leaf in ours.items() if path not in left_open}
    _check_fits(field, theirs, wanted, model.model)
    return _nested(theirs)


def _at_size(field: str, opened: Opened, shape: tuple[int, int, int], config: ExperimentConfig) -> Opened:
    """A checkpoint of another tool for the run's image size, its positions interpolated as by that tool."""
    spec = opened.outside
    if not spec or opened.image_shape is None or opened.image_shape[:2] == shape[:2] or shape[0] != shape[1]:
        return opened
    return open_weights(field, opening.at_side(spec, shape[0]))


def _check_same_function(field: str, opened: Opened, model: ModelConfig, config: ExperimentConfig) -> None:
    """What does not show in the shapes of its arrays: options, and how texts are read."""
    role = field.partition(".")[0]
    # The head is another one, and says nothing of the rest.
    other_head = opened.task != config.task or (opened.is_headless and config.task == "classification")
    anew = run_config.HEAD if other_head else ()
    _check_options(field, f"{role}.options", opened.model.options, model.options, anew)
    if {opened.task, config.task} == {"contrastive"}:
        _check_options(field, f"{role}.text_options", opened.model.text_options, model.text_options)
        for name in _OF_TEXTS:
            there, here = opened.texts.get(name), getattr(config.contrastive, name)
            if there != here:
                raise ConfigError(
                    f"{field}: it was trained with contrastive.{name}={there!r}, this run has {here!r}"
                )


def _check_options(
    field: str, name: str, there: Mapping[str, Any], here: Mapping[str, Any], anew: tuple[str, ...] = ()
) -> None:
    """`anew`: options of a part that is not taken."""
    theirs, ours = (
        {option: value for option, value in run_config.of_parameters(options).items() if option not in anew}
        for options in (there, here)
    )
    if theirs != ours:
        raise ConfigError(
            f"{field}: it has the options {theirs}, {name} has {ours}: with others its weights mean "
            f'something else: say --config.{name}="{theirs}", or {name.partition(".")[0]}.model=init, or '
            "name other weights"
        )


def _with_head(
    theirs: Flat, outputs: Mapping[Path, int], known: Classes | None, ours: Classes
) -> tuple[Flat, str]:
    """The outputs in the order of this run's classes; or why they cannot be taken, if they cannot."""
    if known is None:
        return theirs, "it does not say which classes it has learned"
    try:
        order = classes.numbers(ours, known, "this run", "these weights")
    except DataError:
        return theirs, classes.difference(known, "there", ours, "here")
    if order is None and known.number != ours.number:
        return theirs, classes.difference(known, "there", ours, "here")
    if order is None:
        return theirs, ""
    taken = {path: np.take(theirs[path], order, axis) for path, axis in outputs.items() if path in theirs}
    return {**theirs, **taken}, ""


def _with_positions(
    field: str,
    theirs: Flat,
    ours: Flat,
    opened: Opened,
    grid: tuple[int, int],
    said: FirstLines | None,
) -> Flat:
    """Learned positions of the image tower for another number of patches."""
    if opened.image_shape is None or not opened.model.patch_size:
        return theirs
    old = _patches(opened.image_shape, opened.model.patch_size)
    found = dict(theirs)
    for path, leaf in ours.items():
        array = theirs.get(path)
        if path[-1] != "positions" or "text" in path or array is None or array.shape == leaf.shape:
            continue
        first = array.shape[1] - old[0] * old[1] if array.ndim == 3 else -1
        # A class token's comes before those of the patches.
        if first < 0 or leaf.shape != (1, first + grid[0] * grid[1], array.shape[2]):
            continue
        resized = positions.resized(array[0, first:], old, grid, "antialiased")
        found[path] = np.concatenate([array[0, :first], resized])[None]
        _say(
            said,
            f"{field}: its positions for {old[0]}×{old[1]} patches are interpolated to {grid[0]}×{grid[1]}",
        )
    return found


def _grid(model: ModelConfig, config: ExperimentConfig, data: DataShape, role: str) -> tuple[int, int]:
    return _patches(networks.image_shape(model, data, role), model.patch_size or config.patch_size)


def _patches(shape: tuple[int, int, int], patch_size: int) -> tuple[int, int]:
    return shape[0] // patch_size, shape[1] // patch_size


def _placed(theirs: Flat, task: str, ours: str) -> Flat:
    """An image tower where the other task has it."""
    if task == ours:
        return theirs
    if ours == "contrastive":
        return {
            (path[0], "image", *path[1:]) if path[0] == "params" else path: array
            for path, array in theirs.items()
        }
    return {
        (path[0], *path[2:]) if path[0] == "params" else path: array
        for path, array in theirs.items()
        if path[0] != "params" or path[1] == "image"
    }


def _check_fits(field: str, theirs: Flat, ours: Flat, model: str) -> None:
    missing = [_name(path) for path in ours if path not in theirs]
    surplus = [_name(path) for path in theirs if path not in ours]
    misshaped = [
        f"{_name(path)} {list(theirs[path].shape)} where {list(leaf.shape)} is expected"
        for path, leaf in ours.items()
        if path in theirs and theirs[path].shape != leaf.shape
    ]
    kinds = (("missing", missing), ("left over", surplus), ("of another shape", misshaped))
    differs = [f"{len(names)} {kind} (first: {names[0]})" for kind, names in kinds if names]
    if differs:
        raise ConfigError(f"{field}: its weights are not those of {model} here: {'; '.join(differs)}")


def _nested(flat: Flat) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, array in flat.items():
        inner = tree
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = array
    return tree


def _name(path: Path) -> str:
    return "/".join(path[1:])


def _say(said: FirstLines | None, line: str) -> None:
    if said is not None:
        said.say(line)
