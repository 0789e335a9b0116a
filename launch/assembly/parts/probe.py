"""A linear probe: a learner that is all of a checkpoint but for its head, which is fitted."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from classact.data.augment import recipe
from classact.data.source import Source
from classact.experiments.config import ConfigError, ExperimentConfig, require
from classact.launch.assembly.parts import fitting, learning, networks, scored, shapes, starts
from classact.nodes import linear_probe, starting, training
from classact.weights import opening


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted probe.

    Attributes:
        state: of the learner, as a run's after its last update.
        head: what was fitted.
        examples: that it was fitted on.
    """

    state: training.TrainState
    head: linear_probe.Head
    examples: int


def fields_of(fields: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """The fields of a configuration whose learner is a probe of a checkpoint.

    Args:
        fields: of the user's configuration; what trains and selects is not used.
        checkpoint: a run directory, or a spec of `weights.opening`.

    Raises:
        ConfigError: if the task has no classes, or there are several data sets.
    """
    learner = {
        **fields["learner"],
        "model": "init",
        "init": checkpoint,
        "freeze": "all_but_head",
        "layer_decay": 1.0,
        # What the checkpoint's model has.
        "patch_size": 0,
        "text_model": "",
    }
    task = fields.get("task")
    require(task == "classification", "task", task, "'classification' for a linear probe")
    several = dict(fields.get("data_sets") or {})
    require(
        not several, "data_sets", sorted(several), "empty for a linear probe, of one data set: train_data"
    )
    # Each image is seen as it is evaluated, and no loss but the head's own is smoothed.
    changes = {"policy": "uniform", "augment": recipe.NONE, "steps": 1, "warmup_steps": 0}
    reference = {**fields["reference"], "checkpoint": "", "scores": "", "head": "", "pretraining_macs": -1.0}
    return {**fields, **changes, "learner": learner, "reference": reference}


def check(config: ExperimentConfig, data: shapes.DataShape) -> None:
    """Checks that a probe can be fitted, computes nothing; ConfigError if the model has no linear head."""
    _head_paths(config, data)


def _head_paths(config: ExperimentConfig, data: shapes.DataShape) -> tuple[fitting.Path, fitting.Path]:
    """Where the learner has the kernel [D, K] and the bias [K] of its head."""
    made = networks.classifier(config, data)
    leaves = fitting.expected(made(data.num_classes))
    axes = fitting.output_axes(made, data.num_classes)
    kernels = [path for path, axis in axes.items() if len(leaves[path].shape) == 2 and axis == 1]
    biases = [path for path in axes if len(leaves[path].shape) == 1]
    if len(kernels) != 1 or len(biases) != 1 or len(axes) != 2:
        raise ConfigError(
            f"learner.model={config.learner.model!r}: it has no head of one kernel and one bias, which a "
            "linear probe fits"
        )
    return kernels[0], biases[0]


def fit(
    config: ExperimentConfig,
    data: shapes.DataShape,
    opened: Source,
    l2: tuple[float, ...],
    batch_size: int,
    told: Callable[[int], None],
) -> Fitted:
    """Computes the features of all examples once, and fits a head on them; blocks until then.

    All features are held in memory: 4 bytes for each example and channel, and twice that while they are
    fitted.

    Args:
        config: of `fields_of`, resolved.
        data: its data set.
        opened: the examples.
        l2: see `linear_probe.fit`.
        batch_size: examples of a forward pass.
        told: how many examples have gone through the model more.

    Raises:
        source.DataError: if the data cannot be read.
        ConfigError: if the weights cannot be read or do not fit, or features are not finite.
    """
    state = training.init_state(learning.trained_models(config, data), config.seed)
    state = starting.start_from(state, starts.variables_of(config, data))
    model, variables = networks.learner(config, data), state.models["learner"].variables

    @jax.jit
    def embed(variables: Any, images: jax.Array) -> jax.Array:
        return model.apply(variables, {"image": images}, train=False)[0]["embedding"]

    rows, labels = [], []
    for first in range(0, opened.num_examples, batch_size):
        last = min(first + batch_size, opened.num_examples)
        # Damaged examples may be left out of it.
        batch = opened.batch(np.arange(first, last))
        count = len(batch["id"])
        if count:
            missing = ((0, batch_size - count), *((0, 0),) * 3)
            filled = np.pad(batch["image"], missing, mode="edge")
            rows.append(np.asarray(embed(variables, filled), np.float32)[:count])
            labels.append(batch["label"])
        told(last - first)
    features = np.concatenate(rows) if rows else np.empty((0, 1), np.float32)
    try:
        head = linear_probe.fit(features, np.concatenate(labels or [np.empty(0)]), data.num_classes, l2)
    except ValueError as error:
        raise ConfigError(f"learner.init={config.learner.init!r} on {opened.name}: {error}") from None
    fitted: dict[str, Any] = {}
    for path, array in zip(_head_paths(config, data), (head.kernel, head.bias), strict=True):
        inner = fitted
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = array
    return Fitted(starting.start_from(state, {"learner": fitted}), head, len(features))


def computed_before(config: ExperimentConfig) -> dict[str, float]:
    """What the features have cost, in MACs, by what it was; of another tool's checkpoint nobody knows it."""
    spec = config.learner.init
    if opening.is_outside(spec):
        return {f"checkpoint {spec}": 0.0}
    return scored.run_cost(pathlib.Path(spec))
