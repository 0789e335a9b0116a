"""Algorithm 1 or 2 in one loop, from a configuration: no nodes, no replay, no files."""

from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from classact.data.shard_stream import make_stream
from classact.experiments.config import DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import kept, learning, networks, ordered, references, sources, starts
from classact.launch.assembly.parts.shapes import DataShape
from classact.nodes import synchronous, training
from classact.selection import policies


def train(
    config: ExperimentConfig,
    data: Mapping[str, DataShape],
    on_step: Callable[
        [int, training.TrainState, Mapping[str, jax.Array], Mapping[str, synchronous.Batch]], None
    ] = lambda *_: None,
    on_scored: Callable[[int, str, synchronous.Batch, np.ndarray], None] = lambda *_: None,
) -> training.TrainState:
    """Trains to the last step of a configuration; blocks until then.

    Args:
        config: the resolved configuration.
        data: shapes of each data set, of `shapes.data_shape`.
        on_step: called after each update, see `synchronous.train`. What it raises ends the training.
        on_scored: called with the scores before it, see there.

    Returns:
        The final state; `state.variables()["learner"]` are the learner's.

    Raises:
        source.DataError: if a data set cannot be opened.
        DivergedError: if a loss, the scores or the final state are not finite.
    """
    return synchronous.train(
        {name: data_set(config, own, data[name], name) for name, own in config.data_sets.items()},
        learning.make_task(config),
        learning.trained_models(config, next(iter(data.values()))),
        steps=config.steps,
        seed=config.seed,
        accumulation=config.gradient_accumulation,
        whole_loss=config.in_two_passes,
        start=starts.variables_of(config, next(iter(data.values()))),
        on_step=on_step,
        on_scored=on_scored,
    )


def data_set(
    config: ExperimentConfig, own: DataSetConfig, shape: DataShape, name: str = ""
) -> synchronous.DataSet:
    """Opens one of a run's data sets for the loop, with its policy and its fixed reference.

    Args:
        config: the resolved configuration.
        own: the data set.
        shape: of the data set.
        name: its name, by which a recorded order is found that has several.
    """
    models = networks.role_models(config, own, shape)
    fixed = references.fixed_variables(config, own, shape)
    return synchronous.DataSet(
        policies.get(own.policy),
        _stream(config, own, shape, name),
        own.batch_size,
        own.temperature,
        {role: (models[role], variables) for role, variables in fixed.items()},
        config.max_nonfinite_share,
        learning.online_weight(config, own),
        kept.reference_losses(own),
        own.selection.chunks,
    )


def _stream(
    config: ExperimentConfig, own: DataSetConfig, shape: DataShape, name: str
) -> Iterator[synchronous.Batch]:
    if not own.has_replay:
        return ordered.open_stream(config, name, own, shape)
    source = sources.open_train_source(config, own, shape.held_out, known=shape.classes)
    # The reference of Algorithm 2 learns from the whole of what is scored.
    return make_stream(source, own.super_batch_size, config.seed)
