"""From a configuration to the parts of which the nodes are built."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from classact import user_code
from classact.data import captions, classes, noise, prompts, source, specs, stream
from classact.data import fingerprint as fingerprint_lib
from classact.data import tokenizer as tokenizer_lib
from classact.experiments.config import (
    ConfigError,
    DataSetConfig,
    EvaluatorConfig,
    ExperimentConfig,
    ModelConfig,
    require,
)
from classact.launch.assembly import class_meaning, held_out
from classact.models import cost, registry, text, transformer, two_tower
from classact.nodes import training
from classact.replay import records
from classact.selection import contrastive, losses, policies


@dataclasses.dataclass(frozen=True)
class DataShape:
    """What models and tables must know of a data set, without its examples.

    Attributes:
        name: of the source.
        num_examples: how many it has, split and all.
        num_classes: K; 0 without labels.
        image_shape: (H, W, C) in pixels.
        codec: packs its batches into records.
        vocab_size: number of token ids; 0 for a task without texts.
        end_id: the token at which a text ends.
        class_names: of the K classes, by label; None if unknown.
        fingerprint: of the whole data set.
        held_out: which of its examples are not trained on, int64[M]; see `held_out`.
        measured_by: the evaluators that measure on what is trained on.
        classes_of: what its classes are those of, for messages; empty: of itself.
    """

    name: str
    num_examples: int
    num_classes: int
    image_shape: tuple[int, int, int]
    codec: records.RecordCodec
    vocab_size: int = 0
    end_id: int = 0
    class_names: tuple[str, ...] | None = None
    fingerprint: fingerprint_lib.Fingerprint | None = None
    held_out: np.ndarray | None = dataclasses.field(default=None, compare=False)
    measured_by: tuple[str, ...] = ()
    classes_of: str = dataclasses.field(default="", compare=False)

    @property
    def classes(self) -> classes.Classes:
        """What its labels mean."""
        return classes.Classes(self.num_classes, self.class_names)

    def described(self) -> dict[str, Any]:
        """As JSON has it, what must be equal wherever the data set is opened."""
        names = ("num_examples", "vocab_size", "end_id")
        return {
            **{name: getattr(self, name) for name in names},
            **self.classes.as_json(),
            "image_shape": list(self.image_shape),
            "record": self.codec.schema,
            "fingerprint": self.fingerprint.described() if self.fingerprint else {},
            "held_out_examples": 0 if self.held_out is None else len(self.held_out),
        }


def data_shape(config: ExperimentConfig, data: source.Source) -> DataShape:
    """Reads one example to learn the shape."""
    example = next(stream.IIDStream(data, batch_size=1, seed=0))
    vocab_size = end_id = 0
    if config.task == "contrastive":
        tokenizer = make_tokenizer(config)
        vocab_size, end_id = tokenizer.vocab_size, tokenizer.end_id
    codec = records.RecordCodec(example)
    return DataShape(
        data.name,
        data.num_examples,
        data.num_classes,
        data.image_shape,
        codec,
        vocab_size,
        end_id,
        classes.of_source(data).names,
        fingerprint_lib.fingerprint(data),
        held_out.found_in(data),
    )


def open_train_source(
    config: ExperimentConfig,
    data_set: DataSetConfig,
    held: np.ndarray | None = None,
    *,
    known: classes.Classes | None = None,
) -> source.Source:
    """Opens a data set to train on, split and with its noise, ready for the task.

    Args:
        config: of the run.
        data_set: which one.
        held: what is held out to measure on, `DataShape.held_out`, where it is known;
            None: it is found anew, which may read each image once.
        known: what labels mean in the run: those of a classification are mapped to it
            before they get noise, which draws from all classes of the run. None: what
            they mean in the data set.

    Raises:
        source.DataError: if it cannot be opened; names the file and the reason. Also if it
            has classes that the run does not know.
        ConfigError: for noise that it cannot have, or a part of it that would be empty.
    """
    opened = specs.open_source(data_set.train_data, "train")
    _check_noise(config, data_set, opened)
    if config.task == "classification":
        _check_labels(opened)
    if held is None:
        held = held_out.indices(config, data_set.train_data, opened)
    opened = held_out.train_part(opened, held)
    if config.task == "classification" and known is not None:
        opened = classes.in_order_of(opened, known, "the run")
    if data_set.train_split != "all":
        try:
            rest, other = source.held_out_split(opened, data_set.held_out, config.data_seed)
        except ValueError as error:
            raise ConfigError(f"held_out={data_set.held_out!r}: {error}") from None
        opened = other if data_set.train_split == "held_out" else rest
    if data_set.label_noise > 0:
        opened = noise.with_label_noise(opened, data_set.label_noise, config.data_seed)
    if config.task == "classification":
        return opened
    if data_set.caption_noise > 0:
        opened = captions.with_shuffled_captions(opened, data_set.caption_noise, config.data_seed)
    return _tokenized(config, opened)


def open_eval_source(
    config: ExperimentConfig, evaluator: EvaluatorConfig, held: np.ndarray | None = None
) -> source.Source:
    """Opens the data that an evaluator measures on: the eval split of its source.

    Of training data without one it is what is held out of them; `held` is as in
    `open_train_source`.

    Raises:
        source.DataError: if it cannot be opened, or lacks what the evaluator needs.
    """
    opened = specs.open_source(evaluator.data, "eval")
    if any(own.train_data == evaluator.data for own in config.data_sets.values()):
        held = held_out.indices(config, evaluator.data, opened) if held is None else held
        opened = held_out.eval_part(opened, held)
    if evaluator.kind == "retrieval":
        if evaluator.distinct:
            if not opened.captioned:
                raise source.DataError(f"{opened.name} has no captions, only labels: must not be distinct")
            texts = opened.caption_at(np.arange(opened.num_examples))
            _, first = np.unique(texts, return_index=True)
            opened = source.Subset(opened, np.sort(first))
        return _tokenized(config, opened)
    _check_labels(opened)
    if evaluator.kind == "zero_shot" and not opened.class_names:
        raise source.DataError(f"{opened.name}: its classes have no names, which zero_shot makes prompts of")
    return opened


def _check_noise(config: ExperimentConfig, data_set: DataSetConfig, opened: source.Source) -> None:
    """Noise that is asked for and not made would be another experiment."""
    if data_set.label_noise > 0 and not opened.num_classes:
        accepted = f"0 with {opened.name}, which has no labels (caption_noise shuffles captions)"
        require(False, "label_noise", data_set.label_noise, accepted)
    if data_set.caption_noise > 0 and (config.task == "classification" or not opened.captioned):
        accepted = f"0 with {opened.name} and task={config.task!r}: label_noise redraws labels"
        require(False, "caption_noise", data_set.caption_noise, accepted)


def _check_labels(opened: source.Source) -> None:
    if not opened.num_classes:
        raise source.DataError(
            f"{opened.name} has no labels to classify by: name other data, or learn from its captions "
            "with task='contrastive'"
        )


def _tokenized(config: ExperimentConfig, opened: source.Source) -> source.Source:
    if not opened.captioned:
        opened = captions.LabelsAsText(opened, prompts.templates(config.contrastive.templates))
    return captions.Tokenized(opened, make_tokenizer(config))


def make_tokenizer(config: ExperimentConfig) -> tokenizer_lib.BaseTokenizer:
    """Loads the tokenizer of a contrastive task.

    Raises:
        source.DataError: for an unknown or damaged vocabulary.
    """
    return tokenizer_lib.load_tokenizer(config.contrastive.tokenizer, config.contrastive.context_length)


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


def make_model(model: ModelConfig, config: ExperimentConfig, data: DataShape) -> registry.Model:
    """Builds a model that fits the data set.

    Raises:
        ConfigError: for an unknown name, or sizes that do not fit.
    """
    role = "learner" if model == config.learner else "scorer"
    field = f"{role}.model={model.model!r} for {data.name} {data.image_shape}"
    with user_code.reported_as(ConfigError, field):
        return _made_model(model, config, data, role, field)


def _made_model(
    model: ModelConfig, config: ExperimentConfig, data: DataShape, role: str, field: str
) -> registry.Model:
    paired = config.task == "contrastive"
    own = config.contrastive
    twice = sorted({"name", "num_classes", "image_shape", "patch_size"} & set(model.options))
    if twice:
        raise ConfigError(
            f"{role}.options: {twice[0]!r} is none, it follows from the other fields and the data"
        )
    try:
        image = registry.create(
            model.model,
            num_classes=own.embedding_size if paired else data.num_classes,
            image_shape=data.image_shape,
            patch_size=config.patch_size,
            **model.options,
        )
        if not paired:
            return image
        field = f"{role}.text_model={model.text_model!r}"
        size = text.size(model.text_model)
    # The latter for options of another type, or that are no options.
    except (ValueError, TypeError) as error:
        if user_code.blamed(error) is not None:
            raise
        raise ConfigError(f"{field}: {error}") from None
    texts = text.TextTransformer(
        size,
        data.vocab_size,
        own.context_length,
        data.end_id,
        own.embedding_size,
        own.causal,
        # The image tower has accepted them.
        transformer.DTYPES[model.options.get("dtype", "float32")],
        bool(model.options.get("remat", False)),
    )
    if own.loss == "sigmoid":
        return two_tower.build(image, texts, two_tower.SIGMOID_SCALE, two_tower.SIGMOID_BIAS)
    return two_tower.build(image, texts)


def classifier(
    model: ModelConfig, config: ExperimentConfig, data: DataShape
) -> Callable[[int], registry.Model]:
    """What makes a model for a number of classes, and all else as the data set has it."""
    return lambda number: make_model(model, config, dataclasses.replace(data, num_classes=number))


def forward_macs(model: registry.Model, config: ExperimentConfig, data: DataShape) -> int:
    """MACs of a model's forward pass for one example."""
    length = config.contrastive.context_length if config.task == "contrastive" else 0
    return cost.forward_macs(model, data.image_shape, length)


def make_models(config: ExperimentConfig, data: DataShape) -> dict[str, registry.Model]:
    """The run's networks by name: "learner", and "online" and "reference" where a policy has them."""
    every = [policies.get(item.policy) for item in config.data_sets.values()]
    models = {"learner": make_model(config.learner, config, data)}
    if any(policy.online == "proxy" for policy in every):
        models["online"] = make_model(config.scorer, config, data)
    if any(policy.reference is not None for policy in every):
        models["reference"] = make_model(config.scorer, config, data)
    return models


def role_models(
    config: ExperimentConfig, data_set: DataSetConfig, data: DataShape
) -> dict[str, registry.Model]:
    """The networks that score a data set, by role: "online" and "reference".

    The logits of all are in the order of the run's classes.
    """
    policy = policies.get(data_set.policy)
    models = {}
    if policy.online is not None:
        chosen = config.learner if policy.online == "learner" else config.scorer
        models["online"] = make_model(chosen, config, data)
    if policy.reference is not None:
        models["reference"] = make_model(config.scorer, config, data)
    if policy.reference == "fixed" and config.task == "classification":
        run = pathlib.Path(data_set.reference.checkpoint)
        models["reference"] = class_meaning.in_order_of_run(models["reference"], run, data.classes)
    return models


def trained_models(config: ExperimentConfig, data: DataShape) -> dict[str, training.TrainedModel]:
    """The models that the learner trains, with their optimisers.

    The learner learns from all data sets; the online model from those whose policy
    scores with it, and a reference that is trained in the run likewise.
    """
    models = make_models(config, data)
    trained = {}
    for name in ("learner", "online", "reference"):
        weights = {
            data_set: item.weight
            for data_set, item in config.data_sets.items()
            if name in policies.get(item.policy).trained_models
        }
        if not weights:
            continue
        on_super_batch = name == "reference"
        factor = config.reference.learning_rate_factor if on_super_batch else 1.0
        optimizer = training.OptimizerConfig(
            learning_rate=factor * config.learning_rate,
            steps=config.steps,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
        trained[name] = training.TrainedModel(models[name], optimizer, weights, on_super_batch)
    return trained
