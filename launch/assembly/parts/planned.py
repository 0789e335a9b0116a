"""From a configuration to what `experiments/planning/plan.py` and `needs.py` take; nothing is trained."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from classact.data.carried import kinds, sealing
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig, ModelConfig
from classact.experiments.planning import plan
from classact.launch.assembly.parts import (
    class_meaning,
    class_names_head,
    costs,
    joint_shapes,
    networks,
    reference_models,
    shapes,
    sources,
)
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.models import cost, registry, transformer
from classact.nodes import checkpoints
from classact.replay import records
from classact.selection import policies
from classact.weights import opening

# What stands for a reference that is not trained yet.
UNTRAINED = "a reference that is not trained yet"
_RATIOS = (0.5, 0.33, 0.25)
# Of an image's pixels, what its JPEG file has if it was made of this size with quality 90: of data that
# are not here.
_FILE_SHARE = 0.25
# The same score with a small online model in place of the learner.
_WITH_PROXY = {"rho": "classact_ho", "learnability": "classact", "jest": "jest_proxy"}


def opened_shapes(config: ExperimentConfig, said: FirstLines) -> dict[str, shapes.DataShape]:
    """Opens each data set to learn its shape.

    Raises:
        source.DataError: if one cannot be opened.
        ConfigError: if they differ in what one model is built for.
    """
    data = {}
    for name, own in config.data_sets.items():
        opened = sources.open_train_source(config, own, images=own.carried)
        shape = shapes.data_shape(config, opened, own.carried)
        data[name] = joint_shapes.with_embeddings(config, own, shape)
    (first, shape), *others = data.items()
    for name, other in others:
        if shape.image_shape != other.image_shape:
            raise ConfigError(
                f"data_sets {first} and {name} differ in image_shape: one model learns from both"
            )
    return class_meaning.agreed(config, data, None, said)


def stated_shapes(
    config: ExperimentConfig, image_shape: tuple[int, int, int], num_classes: int
) -> dict[str, shapes.DataShape]:
    """Shapes of data that are not here.

    Args:
        config: the resolved configuration; a contrastive task's tokenizer is loaded.
        image_shape: (H, W, C) in pixels.
        num_classes: K; not used by a contrastive task.
    """
    example: dict[str, np.ndarray] = {
        "id": np.zeros(1, np.int64),
        "image": np.zeros((1, *image_shape), np.uint8),
    }
    vocab_size = end_id = 0
    if config.task == "contrastive":
        tokenizer = sources.make_tokenizer(config)
        vocab_size, end_id, num_classes = tokenizer.vocab_size, tokenizer.end_id, 0
        example["text"] = np.zeros((1, config.contrastive.context_length), np.int32)
    else:
        example["label"] = np.zeros(1, np.int32)
    pixels = example["image"].nbytes
    found = {}
    for name, own in config.data_sets.items():
        file = bytes(round(_FILE_SHARE * pixels))
        added = {kinds.FILE: np.array([file], object), kinds.EPOCH: np.zeros(1, np.int64)}
        sealed = sealing.Sealer(own.carried)(example | added)
        codec = records.RecordCodec(sealed)
        shape = shapes.DataShape(
            "stated images",
            0,
            num_classes,
            image_shape,
            codec,
            vocab_size,
            end_id,
            sent_bytes=codec.num_bytes - sealing.unused_bytes(sealed),
        )
        found[name] = joint_shapes.with_embeddings(config, own, shape)
    return found


def is_trained(own: DataSetConfig) -> bool:
    """Whether a data set's fixed reference is there: its run has ended, or has left a checkpoint."""
    if opening.is_outside(own.reference.checkpoint):
        return True
    run = pathlib.Path(own.reference.checkpoint)
    there = (run / "result.json").is_file() or checkpoints.latest_step(run / "checkpoints") is not None
    return (run / "config.json").is_file() and there


def make_setting(
    config: ExperimentConfig,
    data: Mapping[str, shapes.DataShape],
    uniform_steps: int = 0,
    reference_steps: int = 0,
) -> plan.Setting:
    """Counts a configuration's costs and sizes.

    Args:
        config: the resolved configuration.
        data: shapes of each data set.
        uniform_steps: updates of the uniform run to be held against; 0: as many as this one's.
        reference_steps: updates of a reference that is not trained yet, on the data set's batches;
            0: as many as the uniform run's, as the paper's formula has it.

    Raises:
        ConfigError: if a model cannot be built.
        ValueError: if its MACs cannot be counted.
        curves.RunError: if a reference's run is damaged.
    """
    shape = next(iter(data.values()))
    learner = _network(config.learner, config, shape)
    scorer = _scorer(config, shape)
    uniform_steps = uniform_steps or config.steps
    paid: set[str] = set()
    data_sets = []
    for name, own in config.data_sets.items():
        policy = policies.get(own.policy)
        before = 0.0
        reference = _reference(config, own, data[name], scorer)
        if policy.reference == "fixed" and own.reference.checkpoint not in paid:
            paid.add(own.reference.checkpoint)
            steps = reference_steps or uniform_steps
            before = own.reference.pretraining_macs
            if before < 0 and is_trained(own):
                before = costs.pretraining_macs(config, own, data[name])
            elif before < 0:
                network = reference or scorer
                before = steps * own.batch_size * network.update_macs if network else 0.0
            if own.reference.head:
                before += class_names_head.macs(config, own, data[name])
        data_sets.append(
            plan.DataSetPlan(
                name,
                policy,
                own.batch_size,
                own.super_batch_size,
                own.reference.super_batch,
                before,
                round(data[name].sent_bytes),
                own.replay.capacity,
                own.replay.shards,
                own.inference.servers,
                own.inference.servers * own.inference.run_loops,
                own.inference.request_size,
                data[name].example_bytes,
                data[name].codec.num_bytes,
                own.carried != kinds.PIXELS,
                read_ahead=own.replay.read_ahead,
                reference=reference,
                joint_macs=costs.joint_macs(config, own, data[name]),
            )
        )
    return plan.Setting(config.steps, uniform_steps, learner, scorer, tuple(data_sets))


def _scorer(config: ExperimentConfig, data: shapes.DataShape) -> plan.Network | None:
    """The scorer, if it is the online model or stands for a reference that says nothing of itself."""
    every = [(policies.get(own.policy), own) for own in config.data_sets.values()]
    if not any(
        policy.online == "proxy" or (policy.reference is not None and not own.reference.scores)
        for policy, own in every
    ):
        return None
    return _network(config.scorer, config, data)


def _reference(
    config: ExperimentConfig, own: DataSetConfig, data: shapes.DataShape, scorer: plan.Network | None
) -> plan.Network | None:
    """A data set's reference, if it is another model than the scorer."""
    if policies.get(own.policy).reference is None or own.reference.scores:
        return None
    found = reference_models.described(config, own, data)
    if scorer is not None and reference_models.is_scorer(found, config, data):
        return None
    counted = costs.of_reference(config, own, data)
    assert counted is not None
    return _counted(found.model.model, networks.reference(config, own, data), counted)


def _network(model: ModelConfig, config: ExperimentConfig, data: shapes.DataShape) -> plan.Network:
    made = networks.make_model(model, config, data, "learner" if model == config.learner else "scorer")
    return _counted(model.model, made, costs.of_model(made, config, data))


def _counted(name: str, made: registry.Model, counted: costs.ModelCosts) -> plan.Network:
    variables = jax.eval_shape(lambda: made.init(jax.random.key(0)))
    return plan.Network(name, counted.forward, counted.update, cost.count_parameters(variables))


def alternatives(
    config: ExperimentConfig, data: Mapping[str, shapes.DataShape], setting: plan.Setting
) -> list[plan.Alternative]:
    """What could be instead: smaller scorers of the registry, lower ratios, a small online model.

    A reference of another size costs as many updates as this one.
    """
    shape = next(iter(data.values()))
    scorers: list[tuple[tuple[tuple[str, str], ...], plan.Network | None]] = [((), setting.scorer)]
    own_macs = setting.scorer.forward_macs if setting.scorer else 0.0
    for model in _from_small_to_large(config) if own_macs else ():
        network = _network(model, config, shape)
        if network.forward_macs >= own_macs:
            break
        scorers.append(((("scorer.model", model.model),), network))
    found = []
    for (changes, scorer), ratio, proxied in itertools.product(scorers, (None, *_RATIOS), (False, True)):
        changed = [_changed(item, setting.scorer, scorer, ratio, proxied) for item in setting.data_sets]
        if any(item is None for item in changed):
            continue
        parts = tuple(item for item in changed if item is not None)
        more = ((("filter_ratio", f"{ratio:g}"),) if ratio else ()) + (_proxied(setting) if proxied else ())
        if changes or more:
            other = dataclasses.replace(setting, scorer=scorer, data_sets=parts)
            found.append(plan.Alternative((*changes, *more), other))
    return found


def _from_small_to_large(config: ExperimentConfig) -> Iterator[ModelConfig]:
    options = config.scorer.options if config.scorer.model.startswith("vit_") else {}

    def of_token(size: str) -> int:
        own = transformer.SIZES[size]
        return own.depth * own.width * (4 * own.width + 2 * own.mlp)

    for size in sorted(transformer.SIZES, key=of_token):
        text_model = f"text_{size}" if config.task == "contrastive" else ""
        yield dataclasses.replace(config.scorer, model=f"vit_{size}", text_model=text_model, options=options)


def _proxied(setting: plan.Setting) -> tuple[tuple[str, str], ...]:
    names = dict.fromkeys(
        _WITH_PROXY[i.policy.name] for i in setting.data_sets if i.policy.name in _WITH_PROXY
    )
    return tuple(("policy", name) for name in names)


def _changed(
    item: plan.DataSetPlan,
    own: plan.Network | None,
    scorer: plan.Network | None,
    ratio: float | None,
    proxied: bool,
) -> plan.DataSetPlan | None:
    """A data set with these changes; None if one of them changes nothing, or cannot be."""
    if ratio is not None:
        smaller = round(item.batch_size / (1 - ratio))
        if not item.policy.scores or smaller >= item.super_batch_size:
            return None
        item = dataclasses.replace(item, super_batch_size=smaller)
    if proxied:
        if item.policy.name not in _WITH_PROXY:
            return None
        item = dataclasses.replace(item, policy=policies.get(_WITH_PROXY[item.policy.name]))
    if own is not None and scorer is not None and item.reference is None:
        # On as many examples as the one that it replaces.
        factor = scorer.update_macs / own.update_macs
        item = dataclasses.replace(item, pretraining_macs=item.pretraining_macs * factor)
    return item
