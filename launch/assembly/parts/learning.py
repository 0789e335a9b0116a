"""What the learner learns by: its losses, what it trains and how, and batches that its devices can share."""

import jax

from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import networks
from classact.launch.assembly.parts.shapes import DataShape
from classact.nodes import training
from classact.selection import contrastive, losses, policies, weighting


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
        return contrastive.Contrastive(config.contrastive.loss, config.contrastive.act_loss, mesh)
    except ValueError as error:
        raise ConfigError(f"contrastive.{error}") from None


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
        "learner": 1.0,
        "online": config.selection.learning_rate_factor,
        "reference": config.reference.learning_rate_factor,
    }
    for name in factors:
        weights = {
            data_set: item.weight
            for data_set, item in config.data_sets.items()
            if name in policies.get(item.policy).trained_models
        }
        if not weights:
            continue
        on_super_batch = name == "reference"
        optimizer = training.OptimizerConfig(
            learning_rate=factors[name] * config.learning_rate,
            steps=config.steps,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
        trained[name] = training.TrainedModel(models[name], optimizer, weights, on_super_batch)
    return trained


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
