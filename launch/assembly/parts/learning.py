"""What the learner learns by: its losses, what it trains and how, and batches that its devices can share."""

from collections.abc import Mapping

import jax

from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import fitting, networks
from classact.launch.assembly.parts.shapes import DataShape
from classact.nodes import optimizers, training
from classact.selection import contrastive, losses, weighting


def make_task(config: ExperimentConfig, mesh: jax.sharding.Mesh | None = None) -> losses.Task:
    """Builds the task: its losses.

    Args:
        config: of the run.
        mesh: the devices of those who train with it; None: one.

    Raises:
        ConfigError: for an unknown loss.
    """
    if config.task == "classification":
        return losses.Classification(config.label_smoothing)
    try:
        own = config.contrastive
        return contrastive.Contrastive(own.loss, own.act_loss, mesh, own.similarity_precision)
    except ValueError as error:
        raise ConfigError(f"contrastive.{error}") from None


def make_update(
    config: ExperimentConfig,
    trained: Mapping[str, training.TrainedModel],
    mesh: jax.sharding.Mesh | None,
) -> training.Update:
    """Builds the jitted update of the models that a run trains; see `training.make_update`.

    Raises:
        ConfigError: as `make_task`.
    """
    return training.make_update(
        trained, make_task(config, mesh), mesh, config.gradient_accumulation, config.in_two_passes
    )


def online_weight(config: ExperimentConfig, data_set: DataSetConfig) -> weighting.OnlineWeight:
    """α of a data set's scores, over the whole run."""
    own = data_set.selection
    return weighting.OnlineWeight(own.online_weight, own.online_weight_end, config.steps)


def trained_models(config: ExperimentConfig, data: DataShape) -> dict[str, training.TrainedModel]:
    """The models that the learner trains, with their optimisers.

    The learner learns from all data sets; the online model from those whose policy
    scores with it, and a reference that is trained in the run likewise.
    """
    models = networks.make_models(config, data)
    trained = {}
    factors = {
        "learner": config.selection.learning_rate_factor if config.serve.on else 1.0,
        "online": config.selection.learning_rate_factor,
        "reference": config.reference.learning_rate_factor,
    }
    for name in factors:
        weights = {
            data_set: item.weight
            for data_set, item in config.data_sets.items()
            if name in config.policy_of(item).trained_models
        }
        if not weights:
            continue
        on_super_batch = name == "reference"
        own = config.optimizer
        optimizer = training.OptimizerConfig(
            learning_rate=factors[name] * config.learning_rate,
            steps=config.steps,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            name=own.name,
            shape=own.schedule,
            cooldown_steps=own.cooldown_steps,
            beta1=own.beta1,
            beta2=own.beta2,
            epsilon=own.epsilon,
            decayed=own.decayed,
            decay_times_rate=own.decay_times_rate,
            rates=_rates(config, data) if name == "learner" else {},
        )
        trained[name] = training.TrainedModel(models[name], optimizer, weights, on_super_batch)
    return trained


def _rates(config: ExperimentConfig, data: DataShape) -> dict[str, float]:
    """What the learning rates of the learner's parameters are multiplied by; empty: all by 1.

    Raises:
        ConfigError: if its layers cannot be told apart.
    """
    own = config.learner
    if not own.freeze and own.layer_decay == 1:
        return {}
    made, number = networks.by_outputs(own, config, data, "learner")
    params = {path[1:]: leaf for path, leaf in fitting.expected(made(number)).items() if path[0] == "params"}
    names = {"/".join(path): len(leaf.shape) for path, leaf in params.items()}
    rates = dict.fromkeys(names, 1.0)
    if own.layer_decay != 1:
        try:
            rates = optimizers.layer_rates(names, own.layer_decay)
        except ValueError as error:
            raise ConfigError(f"learner.layer_decay={own.layer_decay!r} with {own.model}: {error}") from None
    if own.freeze == "all_but_head":
        heads = {"/".join(path[1:]) for path in fitting.output_axes(made, number)}
        if not heads:
            raise ConfigError(
                f"learner.freeze={own.freeze!r} with {own.model} and options {dict(own.options)}: expected a "
                "model with a head: without one nothing would be trained"
            )
        # Of a head the bias, whose name says no more, grows too; of two towers the scale goes with them.
        frozen = {name for name, axes in names.items() if name not in heads and axes}
    else:
        frozen = {name for name in names if own.freeze and name.startswith(f"{own.freeze}/")}
    return {name: 0.0 if name in frozen else rate for name, rate in rates.items()}


def check_batches(config: ExperimentConfig, devices: int) -> None:
    """Checks that the learner's devices, those of all hosts, can share every batch and micro-batch evenly.

    Raises:
        ConfigError: naming the field, the number of devices and what would do.
    """
    for name, own in config.data_sets.items():
        sizes = {"batch_size": (own.batch_size, devices * config.gradient_accumulation)}
        if own.reference.super_batch:
            # The window of the stream grows by what is scored.
            sizes["batch_size / (1 - filter_ratio)"] = (own.super_batch_size, devices)
            sizes["reference.super_batch"] = (
                own.reference.super_batch, devices * config.gradient_accumulation
            )  # fmt: skip
        for field, (size, divisor) in sizes.items():
            if size % divisor:
                raise ConfigError(
                    f"{field}={size!r} of {name}: must be divisible by {divisor}: the learner has "
                    f"{devices} devices, and gradient_accumulation={config.gradient_accumulation}"
                )
