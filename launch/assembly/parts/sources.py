"""Opens the data of a run: to train on, with split and noise, and to measure on."""

import numpy as np

from classact.data import captions, classes, noise, prompts, source, specs, views
from classact.data import tokenizer as tokenizer_lib
from classact.data.augment import augmented, recipe
from classact.data.carried import sealing
from classact.data.carried.kinds import ENCODED, IDS, PIXELS
from classact.data.decoding import pool
from classact.experiments.config import (
    ConfigError,
    ContrastiveConfig,
    DataSetConfig,
    EvaluatorConfig,
    ExperimentConfig,
    require,
)
from classact.launch.assembly.parts import held_out, kept, texts


def open_train_source(
    config: ExperimentConfig,
    data_set: DataSetConfig,
    held: np.ndarray | None = None,
    *,
    known: classes.Classes | None = None,
    images: str = PIXELS,
) -> source.Source:
    """Opens a data set to train on, split, augmented and with its noise, ready for the task.

    Args:
        config: of the run.
        data_set: which one.
        held: what is held out to measure on, `DataShape.held_out`, where it is known;
            None: it is found anew, which may read each image once.
        known: what labels mean in the run: those of a classification are mapped to it
            before they get noise, which draws from all classes of the run. None: what
            they mean in the data set.
        images: what the replay is to carry of them, `replay.images`; the batches have what is needed
            for it.

    Returns:
        What its policy trains on: of `top_share` the part that it keeps.

    Raises:
        source.DataError: if it cannot be opened; names the file and the reason. Also if it
            has classes that the run does not know, or the replay cannot carry that of it.
        ConfigError: for noise that it cannot have, or a part of it that would be empty.
    """
    pool.use_threads(config.threads.decoding)
    opened = specs.open_source(data_set.train_data, "train")
    _check_noise(config, data_set, opened)
    if config.task == "classification":
        _check_labels(opened)
    if held is None:
        held = held_out.indices(config, data_set.train_data, opened)
    _check_carried(opened, images)
    opened = _augmented(config, data_set, opened)
    if images != PIXELS:
        opened = sealing.InEpochs(opened)
    opened = held_out.train_part(opened, held)
    if config.task == "classification" and known is not None:
        opened = classes.in_order_of(opened, known, "the run")
    if data_set.train_split != "all":
        try:
            rest, other = views.held_out_split(opened, data_set.held_out, config.data_seed)
        except ValueError as error:
            raise ConfigError(f"held_out={data_set.held_out!r}: {error}") from None
        opened = other if data_set.train_split == "held_out" else rest
    if data_set.label_noise > 0:
        opened = noise.with_label_noise(opened, data_set.label_noise, config.data_seed)
    if config.task == "classification":
        return kept.best_share(data_set, opened)
    if data_set.caption_noise > 0:
        opened = captions.with_shuffled_captions(opened, data_set.caption_noise, config.data_seed)
    return _tokenized(config, kept.best_share(data_set, opened), texts.of_reference(config, data_set))


def open_carried_images(config: ExperimentConfig, data_set: DataSetConfig) -> source.Source:
    """Opens a data set's images as its run loops augment them: all of them, whatever is trained on.

    Raises:
        source.DataError: if it cannot be opened; names the file and the reason.
    """
    return _augmented(config, data_set, specs.open_source(data_set.train_data, "train"))


def open_eval_source(
    config: ExperimentConfig, evaluator: EvaluatorConfig, held: np.ndarray | None = None
) -> source.Source:
    """Opens the data that an evaluator measures on: the eval split of its source.

    Of training data without one it is what is held out of them; `held` is as in
    `open_train_source`.

    Raises:
        source.DataError: if it cannot be opened, or lacks what the evaluator needs.
    """
    pool.use_threads(config.threads.decoding)
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
            opened = views.Subset(opened, np.sort(first))
        return _tokenized(config, opened)
    _check_labels(opened)
    if evaluator.kind == "zero_shot" and not opened.class_names:
        raise source.DataError(f"{opened.name}: its classes have no names, which zero_shot makes prompts of")
    return opened


def _check_carried(opened: source.Source, images: str) -> None:
    """Asks for what the replay is to carry of a source's images; DataError if it could not."""
    if images == ENCODED:
        opened.keep_files()
    if images == IDS and opened.fetched_whole is not None:
        raise source.DataError(
            f"{opened.name}: replay.images=ids would fetch a whole file for almost each example, as the "
            "learner reads them in no order: expected encoded or pixels, or data on a disk"
        )


def _augmented(config: ExperimentConfig, data_set: DataSetConfig, opened: source.Source) -> source.Source:
    if data_set.augment == recipe.NONE:
        return opened
    return augmented.Augmented(opened, data_set.augment, config.seed)


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
        if opened.name.startswith("tar:"):
            instead = "read labels of its shards, ?label=cls or ?label=KEY"
        else:
            instead = "name other data"
        raise source.DataError(
            f"{opened.name} has no labels to classify by: {instead}, or learn from its captions "
            "with task='contrastive'"
        )


def _tokenized(
    config: ExperimentConfig, opened: source.Source, reference: ContrastiveConfig | None = None
) -> source.Source:
    """`reference`: how a reference reads texts that does not read the run's tokens."""
    if not opened.captioned:
        opened = captions.LabelsAsText(opened, prompts.templates(config.contrastive.templates))
    others = {} if reference is None else {texts.REFERENCE_TEXT: texts.tokenizer_of(reference)}
    return captions.Tokenized(opened, make_tokenizer(config), others)


def make_tokenizer(config: ExperimentConfig) -> tokenizer_lib.BaseTokenizer:
    """Loads the tokenizer of a contrastive task.

    Raises:
        source.DataError: for an unknown or damaged vocabulary.
    """
    return texts.tokenizer_of(config.contrastive)
